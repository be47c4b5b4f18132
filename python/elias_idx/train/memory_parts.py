"""The parts of a training run's memory, counted from the shapes of the arrays that the code makes.

N texts, P pairs of a text and a label, F features, E features of all texts together, D dimensions, C clusters,
L labels, κ labels kept per cluster, Q texts in a batch, B beam, S shortlist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from elias_idx.config import Config
from elias_idx.train import distributed
from elias_idx.train.approximate_adjacency import PRODUCTS_AT_ONCE, SCORES_AT_ONCE
from elias_idx.train.clustering import MAX_CENTROID_ENTRIES
from elias_idx.train.epoch import TEXTS_AT_ONCE
from elias_idx.train.model_sizes import ModelSizes
from elias_idx.train.network import SLOTS_AT_ONCE
from elias_idx.train.stage1 import LARGEST_BLOCK
from elias_idx.train.teacher_forcing import EXTRA_CLUSTERS

# The phases of a run, and spans of them in which a part is held.
PHASES = (
    "features",
    "clustering",
    "start of stage 1",
    "stage 1",
    "clustering again",
    "between the stages",
    "start of stage 2",
    "stage 2",
    "export",
    # Of the full preset only.
    "sparse ranker",
    "fusion",
)
SPANS = {
    "always": PHASES,
    "dense model": PHASES[:9],
    "clusterings": ("clustering", "clustering again"),
    "training": PHASES[2:9],
    "until stage 2": PHASES[2:7],
    "from stage 2 on": PHASES[6:9],
    "with parts": PHASES[9:],
    **{phase: (phase,) for phase in PHASES},
}

# What a short string takes beside its characters, and a string and a number as an entry of a dict.
_STRING, _DICT_ENTRY = 57, 140
# Torch, SciPy and scikit-learn themselves, once they have been used.
_LIBRARIES = 700 * 2**20
# Of what is made or written in blocks.
_BLOCKS = 200 * 2**20
# What torch takes for a score while it picks the largest ones, or for an edge while it compares their weights.
_SCORE = 40
# The core's constants: parts that sums of centroids and those of a step's gradients are made of, at most, and the
# pairs that each of the latter has at least.
_CENTROID_PARTS, _STEP_PARTS, _STEP_PART_PAIRS = 16, 32, 2**14


@dataclass(frozen=True)
class Part:
    """A part of the memory.

    Attributes:
        name: what it is.
        span: the phases of the run in which it is held.
        num_bytes: how large it is.
        on_device: whether it is on the training device, which may be the CPU.
        present: whether it is there before training starts.
        settings: those that make it smaller when lowered or set.
    """

    name: str
    span: str
    num_bytes: int
    on_device: bool = False
    present: bool = False
    settings: tuple[str, ...] = ()


def embedding_dim(config: Config, sizes: ModelSizes) -> int:
    """D."""
    transformer = sizes.transformer.hidden_size if sizes.transformer else 0
    return sizes.input_dim or (config.dim if "bag" in config.encoder else 0) + transformer


def data_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """Libraries, inputs and labels."""
    on_other_device = config.device != "cpu"
    num_texts, num_pairs = sizes.num_texts, sizes.num_pairs
    embeddings = num_texts * sizes.input_dim * 4
    texts = sizes.text_bytes + (num_texts * (_STRING + 8) if sizes.text_bytes else 0)
    return [
        Part("libraries", "always", _LIBRARIES, present=True),
        Part("texts", "always", texts, present=True),
        Part("given embeddings", "always", embeddings, present=True),
        Part("given embeddings for batches", "dense model", embeddings * on_other_device, on_device=True),
        Part("names of labels", "always", sizes.num_labels * (_STRING + 24), present=True),
        Part("labels of texts", "always", num_pairs * 8 + num_texts * 8, present=True),
        Part("labels of texts for batches", "training", num_pairs * 12 + num_texts * 8, on_device=True),
    ]


def encoder_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What belongs to the encoder, and the n-grams."""
    entries, features = sizes.num_entries, sizes.num_features
    ngrams = ("min_word_texts and min_char_texts (higher)", "char_ngrams")
    # Without a bag of them, n-grams are there to make clusters from.
    span, finding = ("always", "features") if "bag" in config.encoder else ("clusterings", "clusterings")
    parts = [
        Part("n-grams", span, features * _DICT_ENTRY if sizes.text_bytes else 0, settings=ngrams),
        Part("features of texts", span, entries * 8 + (sizes.num_texts * 8 if entries else 0), settings=ngrams),
        # Counts of words and of characters, their concatenation and its weighted copy stand side by side.
        Part("finding features", finding, entries * 28 if sizes.text_bytes else 0, settings=ngrams),
    ]
    if "bag" in config.encoder:
        table = features * (config.dim * 4 * 2 + 4)
        parts += [
            Part("features of texts for batches", "dense model", entries * 12, on_device=True, settings=ngrams),
            Part(
                "encoder's table, momentum, second moment",
                "dense model",
                table,
                on_device=True,
                settings=("dim", *ngrams),
            ),
        ]
    if (transformer := sizes.transformer) is not None:
        # Weights, gradients and two moments; a frozen one has weights alone.
        held = transformer.num_parameters * (4 if config.frozen else 16)
        tokens = config.batch_size * config.max_tokens
        activations = 0 if config.frozen else transformer.activation_bytes(tokens, config.max_tokens, config)
        lower = ("batch_size with accumulation_steps higher", "max_tokens", "gradient_checkpointing")
        parts += [
            Part("transformer, gradients, moments", "dense model", held, on_device=True, settings=("frozen",)),
            Part("transformer's activations", "stage 1", activations, on_device=True, settings=lower),
            Part("transformer's activations", "stage 2", activations, on_device=True, settings=lower),
        ]
    return parts


def network_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What is trained behind the encoder."""
    assert config.num_clusters is not None
    num_labels, num_clusters, dim = sizes.num_labels, config.num_clusters, embedding_dim(config, sizes)
    label_dim = config.label_dim or dim
    width = 2 if config.label_dtype == "bfloat16" else 4
    row = num_labels * label_dim * width
    lower = (
        *(("label_dtype = bfloat16",) if config.device == "cpu" else ()),
        *(("dim",) if "bag" in config.encoder else ()),
        "label_dim",
    )
    own, kept = _row_lengths(config, sizes)
    # Labels, logits and their two moments; what torch computes weights with on other devices; and labels' places.
    learned = num_clusters * kept * (16 + (0 if config.device == "cpu" else 28)) + _num_entries(config, sizes) * 4
    lower_own = ("clusters of more equal size",) if sizes.largest_cluster else ()
    lower_kept = ("labels_per_cluster", "num_clusters") if not sizes.largest_cluster else lower_own
    return [
        Part("cluster classifiers, gradients, moments", "training", num_clusters * dim * 16, on_device=True),
        Part("label classifiers", "training", row + num_labels * 4, on_device=True, settings=lower),
        Part("label classifiers' momentum", "training", row + num_labels * 4, on_device=True, settings=lower),
        Part("label classifiers' second moments", "training", num_labels * 8, on_device=True),
        Part("adjacency", "until stage 2", (num_clusters * own + num_labels) * 4, on_device=True, settings=lower_own),
        Part("adjacency, its logits and moments", "from stage 2 on", learned, on_device=True, settings=lower_kept),
        Part("labels' first and best clusters, places", "training", num_labels * 20, on_device=True),
        Part(
            "averaged weights",
            "from stage 2 on",
            _averaged_weights(config, sizes) if config.stage2_epochs and config.averaged_epochs else 0,
            on_device=True,
            settings=("averaged_epochs = 0",),
        ),
    ]


def _averaged_weights(config: Config, sizes: ModelSizes) -> int:
    """Encoder, cluster classifiers, and label classifiers once more."""
    assert config.num_clusters is not None
    num_labels, dim, width = (
        sizes.num_labels,
        embedding_dim(config, sizes),
        2 if config.label_dtype == "bfloat16" else 4,
    )
    bag = sizes.num_features * config.dim * 4 if "bag" in config.encoder else 0
    tuned = sizes.transformer.num_parameters * 4 if sizes.transformer and not config.frozen else 0
    return bag + tuned + config.num_clusters * dim * 4 + num_labels * ((config.label_dim or dim) * width + 4)


def _row_lengths(config: Config, sizes: ModelSizes) -> tuple[int, int]:
    """The length that the adjacency's rows are padded to in stage 1 and in stage 2."""
    assert config.num_clusters is not None
    own = sizes.largest_cluster or math.ceil(sizes.num_labels / config.num_clusters)
    return own, min(sizes.num_labels, max(own, config.labels_per_cluster if config.stage2_epochs else 0))


def _num_entries(config: Config, sizes: ModelSizes) -> int:
    """The adjacency's entries in stage 2 without the padding, at most."""
    assert config.num_clusters is not None
    _, kept = _row_lengths(config, sizes)
    return config.num_clusters * min(kept, config.labels_per_cluster) + sizes.num_labels


def step_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """Scratch of a step."""
    of_stage = _cpu_step if config.device == "cpu" else _device_step
    lower = ("batch_size", "train_shortlist_size", "train_beam_size")
    return [
        Part("a step", phase, of_stage(config, sizes, row_length), on_device=True, settings=lower)
        for phase, row_length in zip(("stage 1", "stage 2"), _row_lengths(config, sizes), strict=True)
    ]


def _cpu_step(config: Config, sizes: ModelSizes, row_length: int) -> int:
    """Of the core, which updates rows without keeping gradients unless several parts or processes add up to a step."""
    assert config.num_clusters is not None
    num_queries, num_clusters, dim = config.batch_size, config.num_clusters, embedding_dim(config, sizes)
    beam, num_pairs = _beam_and_pairs(config, sizes, row_length)
    num_parts = min(_STEP_PARTS, max(1, num_pairs // _STEP_PART_PAIRS))
    reached = min(num_clusters, num_queries * beam) * row_length
    bag_entries = num_queries * sizes.num_entries // sizes.num_texts if "bag" in config.encoder else 0
    scratch = num_queries * (num_clusters * _SCORE + dim * (32 + 4 * (num_parts + 1)))
    # Pairs, sorted by label; the texts' features, sorted; weights and gradients of the edges from reached clusters.
    scratch += num_pairs * 64 + bag_entries * 60 + reached * 8
    # A query's paths, of each thread.
    scratch += _num_threads(config) * beam * row_length * 52
    summands = max(config.accumulation_steps, distributed.num_processes())
    if summands == 1:
        return scratch
    rows = min(sizes.num_labels, num_pairs) * dim + reached + min(sizes.num_features, bag_entries) * config.dim
    # The summands, their sum, and one being added.
    return scratch + rows * 4 * (2 * summands + 2)


def _device_step(config: Config, sizes: ModelSizes, row_length: int) -> int:
    """Of torch, which looks at all paths at a time, and keeps gradients."""
    assert config.num_clusters is not None
    num_queries, num_clusters, dim = config.batch_size, config.num_clusters, embedding_dim(config, sizes)
    beam, num_pairs = _beam_and_pairs(config, sizes, row_length)
    scratch = num_queries * (num_clusters * _SCORE + beam * row_length * 40 + dim * 32) + num_pairs * 64
    return scratch + config.accumulation_steps * min(sizes.num_labels, num_pairs) * dim * 4


def _beam_and_pairs(config: Config, sizes: ModelSizes, row_length: int) -> tuple[int, int]:
    """The clusters of an expanded beam, and a batch's pairs of a text and a label: shortlisted ones and own ones."""
    assert config.num_clusters is not None
    beam = min(config.num_clusters, config.train_beam_size + EXTRA_CLUSTERS)
    shortlist = min(config.train_shortlist_size, beam * row_length, sizes.num_labels)
    return beam, config.batch_size * (shortlist + math.ceil(sizes.num_pairs / sizes.num_texts))


def _num_threads(config: Config) -> int:
    usable = distributed.usable_cpus()
    return min(usable, config.num_threads or usable)


def clustering_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What making clusters takes, if they aren't given, and making them again after a first stage 1."""
    parts = []
    dim = sizes.transformer.hidden_size if sizes.transformer else sizes.input_dim
    if not sizes.largest_cluster:
        by = config.cluster_by or ("sparse" if sizes.num_features else "dense")
        dense_dim = dim if by != "sparse" else 0
        # Given embeddings are there already, and those of a frozen transformer in a mapped file.
        made = sizes.num_texts * dense_dim * 4 if sizes.transformer and not config.frozen else 0
        parts += _clustering(config, sizes, "clustering", sizes.num_features if by != "dense" else 0, dense_dim)
        parts.append(Part("embeddings to cluster by", "clustering", made))
    if config.recluster_epochs:
        dim = embedding_dim(config, sizes)
        parts += _clustering(config, sizes, "clustering again", sizes.num_features, dim)
        parts.append(Part("embeddings to cluster by", "clustering again", sizes.num_texts * dim * 4))
    return parts


def _clustering(config: Config, sizes: ModelSizes, phase: str, num_columns: int, dim: int) -> list[Part]:
    """The core's arrays for F sparse and D dense columns, and its input.

    A label's centroid keeps the largest sparse features of its texts, and dense ones in 16 bits. Sums of both sides of
    a split are made of parts; or each thread splits on its own, or adds features up for centroids.
    """
    num_texts, num_labels, num_pairs = sizes.num_texts, sizes.num_labels, sizes.num_pairs
    per_label = num_pairs * sizes.num_entries / (num_texts * num_labels) if num_columns else 0
    centroid = min(per_label, MAX_CENTROID_ENTRIES) * 8 + dim * 2 + 8
    sums = max(1 + _CENTROID_PARTS, 2 * _num_threads(config)) * (num_columns + dim) * 8
    # Labels in the order of their clusters, and products and sides in a split.
    orders = num_labels * 34
    return [
        Part("texts of labels", phase, num_pairs * 8 + num_labels * 12 + num_texts * 8),
        Part("centroids of labels", phase, int(num_labels * centroid)),
        Part("sums of centroids", phase, sums + orders, settings=("min_char_texts (higher)",) if num_columns else ()),
    ]


def passing_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What is held for a while only, beside the clustering."""
    num_entries = _num_entries(config, sizes)
    parts = [
        Part("first label classifiers", "start of stage 1", _first_label_classifiers(config, sizes)),
        # The adjacency as CSR; the rest is written block by block, and mapped.
        Part("the index", "export", _BLOCKS + num_entries * 24),
    ]
    if config.stage2_epochs:
        lower = ("labels_per_cluster", "num_clusters")
        parts += [
            Part("finding the adjacency", "between the stages", _finding_adjacency(config, sizes), settings=lower),
            Part("making the adjacency", "start of stage 2", _making_adjacency(config, sizes), settings=lower),
        ]
    return parts


def _first_label_classifiers(config: Config, sizes: ModelSizes) -> int:
    """Sums of some labels, what some texts add to them, and these labels' pairs; arrays to make the adjacency from."""
    dim, per_text = config.label_dim or embedding_dim(config, sizes), sizes.num_pairs / sizes.num_texts
    touched = min(sizes.num_labels, int(min(sizes.num_texts, TEXTS_AT_ONCE) * per_text))
    sums = min(sizes.num_labels * dim * 4, LARGEST_BLOCK) + touched * dim * 8
    return sums + sizes.num_pairs * 8 + sizes.num_texts * 4 + sizes.num_labels * 32


def _finding_adjacency(config: Config, sizes: ModelSizes) -> int:
    """The most of what follows one another: scores of clusters, these by cluster, counts and rows, joined rows."""
    assert config.num_clusters is not None
    num_texts, num_clusters = sizes.num_texts, config.num_clusters
    in_beams = num_texts * min(num_clusters, config.train_beam_size)
    scores = min(min(num_texts, TEXTS_AT_ONCE) * num_clusters, SCORES_AT_ONCE) * _SCORE
    products = in_beams * sizes.num_pairs // num_texts
    entries = _num_entries(config, sizes)
    # Of several blocks of counts, two meet.
    counting = min(products, 2 * PRODUCTS_AT_ONCE) * 8 + entries * 8
    joining = min(products, PRODUCTS_AT_ONCE) * 8 + entries * 28
    return sizes.num_labels * 24 + in_beams * 8 + max(scores, in_beams * 16, counting, joining)


def _making_adjacency(config: Config, sizes: ModelSizes) -> int:
    """The pattern and its first logits, and arrays to make padded ones from; these themselves for another device."""
    assert config.num_clusters is not None
    _, kept = _row_lengths(config, sizes)
    slots, entries = config.num_clusters * kept, _num_entries(config, sizes)
    padded = 0 if config.device == "cpu" else slots * 16 + entries * 4
    return entries * 25 + padded + min(slots, SLOTS_AT_ONCE) * _SCORE + sizes.num_labels * 16
