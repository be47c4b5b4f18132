"""Settings that follow from the data: those that a configuration leaves at None.

N texts, L labels, C clusters.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from elias_idx._wording import counted
from elias_idx.config import Config
from elias_idx.data import Inputs, TrainingSet, is_sparse
from elias_idx.errors import DataError
from elias_idx.features.words import first_line, split_words
from elias_idx.train.clustering import default_num_clusters

# Settings of features, which are made of texts alone.
OF_TEXTS = (
    "word_ngrams",
    "char_ngrams",
    "title_word_ngrams",
    "title_char_ngrams",
    "phrase_weight",
    "min_word_texts",
    "min_phrase_texts",
    "min_char_texts",
)

# Where no more labels than these are trained, each of them is scored in every search.
FEW_LABELS = 5_000
# Of more than these, classifiers take half the memory for a little accuracy.
_MANY_LABELS = 500_000

# Steps of stage 1: about what the data sets of docs/experiments.md are best after.
_STAGE1_STEPS = 1_000
_EPOCHS = (4, 40)
# Few texts make too few steps of large batches, and overfit in many epochs.
_FEW_TEXTS, _FEW_TEXTS_EPOCHS = 2_500, (4, 20)
_BATCH, _FEW_TEXTS_BATCH = 256, 64

_SAMPLED_TEXTS = 2_000
# Words of a short text, of which characters tell more than words alone.
_SHORT = 50
# In languages that put no spaces between words, most of what stands between two spaces stands nowhere else.
_UNIQUE_SHARE = 0.3
# Words of all texts for each text that a word or a phrase must be in, where there are many.
_WORDS_A_TEXT, _WORDS_A_PHRASE_TEXT = 25_000_000, 2_500_000


def resolved(config: Config, data: TrainingSet) -> Config:
    """The configuration with all settings filled in; what it says itself stays.

    Args:
        config: the settings.
        data: the training set, whose labels all occur.

    Raises:
        ConfigError: there are more clusters than labels, or no features.
        DataError: the inputs are texts without words.
    """
    config = resolved_for_sizes(config, *data.labels.shape)
    if not are_texts(data.inputs):
        return config
    statistics = TextStatistics.of(data.inputs)
    if not statistics.num_words and not any(map(split_words, data.inputs)):
        texts = counted(len(data.inputs), "training text")
        raise DataError(f"{texts} without any word: there is nothing to learn from; are they the right field's?")
    return _filled(config, _of_texts(statistics))


def are_texts(inputs: Inputs) -> TypeGuard[Sequence[str]]:
    """Whether the inputs are texts, of which features are made."""
    return not (isinstance(inputs, np.ndarray) or is_sparse(inputs))


def resolved_for_sizes(config: Config, num_texts: int, num_labels: int) -> Config:
    """The configuration with all settings filled in but those of features.

    Args:
        config: the settings.
        num_texts: N.
        num_labels: L.

    Raises:
        ConfigError: there are more clusters than labels.
    """
    config = config.with_clusters(num_labels, default_num_clusters(num_labels))
    num_clusters = config.num_clusters
    assert num_clusters is not None
    batch_size = _FEW_TEXTS_BATCH if num_texts <= _FEW_TEXTS else _BATCH
    config = _filled(config, {**_of_labels(num_labels, num_clusters), "batch_size": batch_size})
    stage1 = config.stage1_epochs or _stage1_epochs(num_texts, config)
    # From a single cluster every label is reached: there is no adjacency to learn.
    stage2 = -(-stage1 // 2) if num_clusters > 1 else 0
    return _filled(config, {"stage1_epochs": stage1, "stage2_epochs": stage2})


def _filled(config: Config, settings: dict[str, Any]) -> Config:
    return replace(config, **{name: value for name, value in settings.items() if getattr(config, name) is None})


def _of_labels(num_labels: int, num_clusters: int) -> dict[str, int]:
    few = num_labels <= FEW_LABELS
    return {
        "dim": 256 if few or num_labels > _MANY_LABELS else 512,
        "train_beam_size": min(10, num_clusters),
        "train_shortlist_size": min(500, num_labels),
        "labels_per_cluster": min(500, num_labels),
        "beam_size": num_clusters if few else min(40, num_clusters),
        "shortlist_size": num_labels if few else 4_000,
    }


def _stage1_epochs(num_texts: int, config: Config) -> int:
    steps_per_epoch = num_texts / (config.batch_size * config.accumulation_steps)
    limits = _FEW_TEXTS_EPOCHS if num_texts <= _FEW_TEXTS else _EPOCHS
    return int(np.clip(round(_STAGE1_STEPS / steps_per_epoch), *limits))


@dataclass(frozen=True)
class TextStatistics:
    """What the choice of features depends on, as found in some of the texts.

    Attributes:
        num_words: of all texts, about.
        words_per_text: their mean.
        unique_share: of the words in the sampled texts, those that are in one of them alone.
        titled_share: of the texts, those whose first line is less than half of the text.
    """

    num_words: int
    words_per_text: float
    unique_share: float
    titled_share: float

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextStatistics:
        """Those of N ≥ 1 texts."""
        sample = texts[:: -(-len(texts) // _SAMPLED_TEXTS)]
        words = [split_words(text) for text in sample]
        num_texts = Counter(itertools.chain.from_iterable(map(set, words)))
        num_words = sum(map(len, words))
        num_unique = sum(num_texts[word] == 1 for own in words for word in own)
        per_text = num_words / len(sample)
        return cls(
            num_words=int(per_text * len(texts)),
            words_per_text=per_text,
            unique_share=num_unique / max(1, num_words),
            titled_share=float(np.mean([len(first_line(text)) < len(text.strip()) / 2 for text in sample])),
        )


def _of_texts(texts: TextStatistics) -> dict[str, Any]:
    short, titled = texts.words_per_text <= _SHORT, texts.titled_share > 0.5
    of_words = (3, 5) if short else (0, 0)
    little = texts.num_words < 1_000_000
    return {
        "word_ngrams": (1, 2),
        "char_ngrams": (1, 4) if texts.unique_share > _UNIQUE_SHARE else of_words,
        "title_word_ngrams": (1, 1) if titled and not short else (0, 0),
        "title_char_ngrams": (3, 5) if titled and not short else (0, 0),
        "phrase_weight": 1.0 if short else 0.5,
        "min_word_texts": 1 if little else max(2, texts.num_words // _WORDS_A_TEXT),
        "min_phrase_texts": 1 if little else max(2, texts.num_words // _WORDS_A_PHRASE_TEXT),
        "min_char_texts": max(2, texts.num_words // _WORDS_A_TEXT),
    }


def describe(config: Config, *, texts: bool) -> list[str]:
    """The resolved settings that follow from the data, as lines for people.

    Args:
        config: the settings.
        texts: whether the inputs are texts; else what is said about n-grams has no effect.
    """
    assert config.num_clusters is not None
    return [
        *([_features_line(config)] if texts else _idle_lines(config)),
        f"model: {counted(config.num_clusters, 'cluster')}"
        + (f", embeddings of size {config.dim}" if "bag" in config.encoder else ""),
        f"training: {_epochs(config)}, batches of {config.batch_size:,}, beam {config.train_beam_size}, "
        f"shortlist {config.train_shortlist_size:,}"
        + (f", {counted(config.labels_per_cluster, 'label')} a cluster" if config.stage2_epochs else ""),
        f"search: beam {config.beam_size}, shortlist {config.shortlist_size:,}",
    ]


def _epochs(config: Config) -> str:
    if config.stage2_epochs:
        return f"{config.stage1_epochs} + {counted(config.stage2_epochs, 'epoch')}"
    why = ", since one cluster has no adjacency to learn" if config.num_clusters == 1 else ""
    return f"{counted(config.stage1_epochs, 'epoch')} without stage 2{why}"


def _features_line(config: Config) -> str:
    blocks = (
        f"{block.kind} {block.ngrams[0]}–{block.ngrams[1]}"
        + (" of the first line" if block.field == "first_line" else "")
        + f" (in {counted(block.min_texts, 'text')})"
        for block in config.blocks
    )
    return f"features: {', '.join(blocks)}"


def _idle_lines(config: Config) -> list[str]:
    given = [name for name in OF_TEXTS if getattr(config, name) is not None]
    return [f"without effect, since the inputs are no texts: {', '.join(given)}"] if given else []
