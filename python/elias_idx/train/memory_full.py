"""The parts of a training run's memory that the full preset adds behind the dense model; see `memory_parts`.

N texts, P pairs of a text and a label, F features, E features of all texts together, D dimensions, L labels.
"""

from __future__ import annotations

from elias_idx._core import EVIDENCE
from elias_idx.config import Config
from elias_idx.train import hold_out
from elias_idx.train.cooccurrence import COMPANIONS
from elias_idx.train.memory_parts import Part, embedding_dim
from elias_idx.train.model_sizes import ModelSizes
from elias_idx.train.parts import SHORTLIST, TEXTS_AT_ONCE


def full_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What the ranker, the neighbours and the fusion take, and the dense model that they stand on."""
    if config.preset != "full" or not sizes.num_features:
        return []
    num_texts, num_labels, num_features = sizes.num_texts, sizes.num_labels, sizes.num_features
    encoder = num_features * config.dim * 4 if "bag" in config.encoder else 0
    if sizes.transformer is not None:
        encoder += sizes.transformer.num_parameters * 4
    # In Rust with places for all that a label may keep, then as one array, and once more as SciPy's.
    weights = _ranker_weights(config, sizes) * 8
    examples = num_texts * SHORTLIST + sizes.num_pairs
    embeddings = min(num_texts, TEXTS_AT_ONCE) * embedding_dim(config, sizes) * 4
    ranker_settings = ("ranker_weights",)
    return [
        Part("texts that are not held out", "always", _rest(sizes), present=True),
        Part("encoder that is finished", "with parts", encoder, settings=("dim",)),
        Part("embeddings of some texts", "sparse ranker", embeddings),
        Part("shortlists of texts", "sparse ranker", num_texts * SHORTLIST * 8),
        Part("examples of labels", "sparse ranker", examples * 8 + num_labels * 8),
        Part("ranker's weights while they are learned", "sparse ranker", 2 * weights, settings=ranker_settings),
        Part("ranker", "with parts", weights + num_labels * 12, settings=ranker_settings),
        # SciPy's, and the index's copy.
        Part("co-occurrence of labels", "fusion", 2 * 8 * _cooccurrences(sizes)),
        # The index's own copies of ranker, texts and labels, and the inverted lists while they are made.
        Part("parts in the index", "fusion", weights + sizes.num_entries * 16 + sizes.num_pairs * 4),
        Part("evidence of held-out texts", "fusion", _evidence(config, sizes), settings=("num_candidates",)),
    ]


def _ranker_weights(config: Config, sizes: ModelSizes) -> int:
    """Weights that are kept at most: no more than a label's examples have features."""
    examples = (sizes.num_texts * SHORTLIST + sizes.num_pairs) / sizes.num_labels
    of_examples = examples * sizes.num_entries / sizes.num_texts
    return int(sizes.num_labels * min(config.ranker_weights, sizes.num_features, of_examples))


def _cooccurrences(sizes: ModelSizes) -> int:
    """Pairs of labels that go together at most: those of the texts, if each has as many labels as the others."""
    per_text = sizes.num_pairs / sizes.num_texts
    return int(min(sizes.num_labels * COMPANIONS, sizes.num_pairs * max(per_text - 1, 0)))


def _rest(sizes: ModelSizes) -> int:
    """Copies of labels and of given features; texts are shared."""
    features = sizes.num_entries * 8 if not sizes.text_bytes else 0
    return sizes.num_pairs * 8 + sizes.num_texts * 16 + features


def _evidence(config: Config, sizes: ModelSizes) -> int:
    """Of a dense search's candidates and as many of neighbours, with copies of which some are left out of a fit."""
    num_queries = min(max(hold_out.WANTED, int(sizes.num_texts * hold_out.SHARE)), hold_out.MOST)
    return num_queries * 2 * config.num_candidates * (len(EVIDENCE) * 4 * 4 + 32)
