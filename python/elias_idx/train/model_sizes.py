"""What a training run's memory depends on beside its settings: the sizes of its data and encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from elias_idx.config import Config
from elias_idx.data import TrainingSet, is_sparse
from elias_idx.encoders.tokens import tokens_at_once
from elias_idx.errors import DataError
from elias_idx.features import TextFeatures
from elias_idx.train.clustering import Clusters

# Of the texts, to estimate the number of n-grams: of fewer, far too many would be expected of long texts.
_SAMPLED_CHARACTERS = 3_000_000


@dataclass(frozen=True)
class TransformerSizes:
    """What a transformer's memory depends on.

    Attributes:
        num_parameters: all of them.
        num_layers: of the encoder.
        hidden_size: of a token's vector.
        num_heads: of attention.
    """

    num_parameters: int
    num_layers: int
    hidden_size: int
    num_heads: int

    def activation_bytes(self, tokens: int, length: int, config: Config) -> int:
        """What a forward pass keeps for the backward pass, for `tokens` tokens in texts of `length` tokens.

        34 · hidden + 5 · heads · length numbers of 16 bits a token and layer (Korthikanti et al., "Reducing Activation
        Recomputation in Large Transformer Models", 2022), twice as much in float32. With gradient checkpointing only
        those of the tokens that go through the transformer together.
        """
        width = 1 if config.precision == "bfloat16" else 2
        if config.gradient_checkpointing:
            at_once = tokens_at_once(config.device.partition(":")[0])
            tokens = min(tokens, max(length, at_once))
        return tokens * width * (34 * self.hidden_size + 5 * self.num_heads * length) * self.num_layers


@dataclass(frozen=True)
class ModelSizes:
    """What a run's memory depends on beside its settings.

    Attributes:
        num_texts: N.
        num_labels: L.
        num_pairs: P.
        num_features: F; 0 where there are no sparse features.
        num_entries: E.
        text_bytes: characters of all texts; 0 where the inputs are no texts.
        input_dim: of precomputed embeddings; 0 where the inputs are no embeddings.
        transformer: of the encoder, if it has one.
        largest_cluster: labels of the largest one of given clusters; 0 where clusters are made.
    """

    num_texts: int
    num_labels: int
    num_pairs: int
    num_features: int = 0
    num_entries: int = 0
    text_bytes: int = 0
    input_dim: int = 0
    transformer: TransformerSizes | None = None
    largest_cluster: int = 0


def sizes_of(data: TrainingSet, config: Config, clusters: Clusters | None = None) -> ModelSizes:
    """The sizes of a training set, its encoder and given clusters; n-grams are counted in a sample of the texts."""
    num_texts, num_labels = data.labels.shape
    sizes = ModelSizes(
        num_texts,
        num_labels,
        data.labels.nnz,
        transformer=transformer_sizes(config),
        largest_cluster=max(map(len, clusters or ()), default=0),
    )
    if isinstance(data.inputs, np.ndarray):
        return replace(sizes, input_dim=data.inputs.shape[-1])
    if is_sparse(data.inputs):
        return replace(sizes, num_features=data.inputs.shape[1], num_entries=data.inputs.nnz)
    num_features, num_entries = _ngram_sizes(data.inputs, config)
    text_bytes = sum(map(len, data.inputs))
    return replace(sizes, num_features=num_features, num_entries=num_entries, text_bytes=text_bytes)


def transformer_sizes(config: Config) -> TransformerSizes | None:
    """The sizes of the transformer that the configuration names, if the encoder has one.

    Raises:
        ConfigError: there is no such transformer, or it doesn't read as many tokens as the configuration says.
        MissingExtraError: packages for transformers are missing.
    """
    if config.transformer is None:
        return None
    from elias_idx.encoders.pretrained import load_architecture
    from elias_idx.encoders.transformer import check_max_tokens

    model, tokenizer = load_architecture(config.transformer)
    check_max_tokens(config.max_tokens, model, tokenizer)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = model.config
    return TransformerSizes(num_parameters, sizes.num_hidden_layers, sizes.hidden_size, sizes.num_attention_heads)


def _ngram_sizes(texts: Sequence[str], config: Config) -> tuple[int, int]:
    """(features F, entries E) of the texts, exact for few texts.

    Of many texts a sample and half of it are counted. Vocabularies grow as a power of the text (Heaps' law), which the
    two counts tell; so do entries, since of more texts more n-grams are frequent enough.
    """
    characters = sum(map(len, texts))
    step = max(1, -(-characters // _SAMPLED_CHARACTERS))
    sample = texts[::step]
    features, entries = _count_ngrams(sample, config)
    if step == 1 or not features:
        return features, entries
    of_half = _count_ngrams(sample[::2], config)
    return _extrapolated(features, of_half[0], step), _extrapolated(entries, of_half[1], step)


def _extrapolated(count: int, count_of_half: int, times: int) -> int:
    return int(count * times ** math.log2(count / max(1, count_of_half)))


def _count_ngrams(texts: Sequence[str], config: Config) -> tuple[int, int]:
    try:
        matrix = TextFeatures(config.blocks).fit_transform(texts, config.num_threads)
    except DataError:
        return 0, 0
    return matrix.shape[1], matrix.nnz
