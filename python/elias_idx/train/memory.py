"""How much memory a training run takes, by part, before it starts.

N texts, P pairs of a text and a label, F features, E features of all texts together, D dimensions, C clusters,
L labels, κ labels kept per cluster, Q texts in a batch, B' clusters of an expanded beam, S shortlist.

Parts are counted from the shapes of the arrays that the code makes; only what Python's own objects take is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from elias_idx.config import Config
from elias_idx.data import TrainingSet, is_sparse
from elias_idx.encoders.tokens import tokens_at_once
from elias_idx.errors import ConfigError, DataError
from elias_idx.features import TextFeatures
from elias_idx.train import distributed
from elias_idx.train.approximate_adjacency import PRODUCTS_AT_ONCE
from elias_idx.train.clustering import MAX_CENTROID_ENTRIES, default_num_clusters
from elias_idx.train.stage1 import LARGEST_BLOCK
from elias_idx.train.teacher_forcing import EXTRA_CLUSTERS

# The phases of a run, and spans of them in which a part is held.
_PHASES = ("features", "clustering", "stage 1", "between the stages", "stage 2", "export")
_SPANS = {
    "always": _PHASES,
    "training": _PHASES[2:],
    "until stage 2": _PHASES[2:4],
    "from stage 2 on": _PHASES[4:],
    **{phase: (phase,) for phase in _PHASES},
}

# What a short string takes beside its characters, and a string and a number as an entry of a dict.
_STRING, _DICT_ENTRY = 57, 140
# Torch, SciPy and scikit-learn themselves, once they have been used.
_LIBRARIES = 700 * 2**20
# Of what is made or written in blocks.
_BLOCKS = 200 * 2**20
# Where Linux says what memory there is, and what this process' group may take.
_MEMINFO, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# Of the texts, to estimate the number of n-grams.
_SAMPLED_CHARACTERS = 300_000


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
    """

    num_texts: int
    num_labels: int
    num_pairs: int
    num_features: int = 0
    num_entries: int = 0
    text_bytes: int = 0
    input_dim: int = 0
    transformer: TransformerSizes | None = None


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


@dataclass(frozen=True)
class MemoryAccount:
    """The memory of a run by part.

    Attributes:
        parts: all of them.
        device: "cpu", or a device with memory of its own.
    """

    parts: Sequence[Part]
    device: str

    def held(self, phase: str, *, on_device: bool) -> int:
        """Bytes that a phase takes, in the machine's memory or in the device's own."""
        separate = self.device != "cpu"
        return sum(
            part.num_bytes
            for part in self.parts
            if phase in _SPANS[part.span] and (part.on_device and separate) == on_device
        )

    def peak(self, *, on_device: bool = False) -> int:
        """Bytes of the phase that takes most."""
        return max(self.held(phase, on_device=on_device) for phase in _PHASES)

    def present(self) -> int:
        """Bytes that are there before training starts."""
        return sum(part.num_bytes for part in self.parts if part.present)

    def lines(self) -> list[str]:
        """A table: the parts, what each phase takes, and the most that is taken at a time."""
        separate = self.device != "cpu"
        rows = [
            (part.name, part.span + (f", {self.device}" if separate and part.on_device else ""), part.num_bytes)
            for part in self.parts
            if part.num_bytes
        ]
        rows += [(f"in all during {phase}", "", self.held(phase, on_device=False)) for phase in _PHASES]
        rows.append(("at most", "", self.peak()))
        if separate:
            rows.append((f"at most on {self.device}", "", self.peak(on_device=True)))
        return [_line(name, phase, shown_bytes(num_bytes)) for name, phase, num_bytes in rows]


def memory_account(config: Config, sizes: ModelSizes) -> MemoryAccount:
    """The memory that training takes.

    Args:
        config: the settings; C and β need not be filled in.
        sizes: of data and encoder.
    """
    config = config.with_clusters(sizes.num_labels, default_num_clusters(sizes.num_labels))
    parts = [*_data_parts(config, sizes), *_encoder_parts(config, sizes), *_network_parts(config, sizes)]
    parts += [*_step_parts(config, sizes), *_passing_parts(config, sizes)]
    device = "cpu" if config.device == "cpu" else torch.device(config.device).type
    return MemoryAccount(parts, device)


def embedding_dim(config: Config, sizes: ModelSizes) -> int:
    """D."""
    transformer = sizes.transformer.hidden_size if sizes.transformer else 0
    return sizes.input_dim or (config.dim if "bag" in config.encoder else 0) + transformer


def _data_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    on_other_device = config.device != "cpu"
    num_texts, num_pairs = sizes.num_texts, sizes.num_pairs
    embeddings = num_texts * sizes.input_dim * 4
    texts = sizes.text_bytes + (num_texts * (_STRING + 8) if sizes.text_bytes else 0)
    return [
        Part("libraries", "always", _LIBRARIES, present=True),
        Part("texts", "always", texts, present=True),
        Part("given embeddings", "always", embeddings, present=True),
        Part("given embeddings for batches", "always", embeddings * on_other_device, on_device=True),
        Part("names of labels", "always", sizes.num_labels * (_STRING + 24), present=True),
        Part("labels of texts", "always", num_pairs * 8 + num_texts * 8, present=True),
        Part("labels of texts for batches", "always", num_pairs * 12 + num_texts * 8, on_device=True),
    ]


def _encoder_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    entries, features = sizes.num_entries, sizes.num_features
    ngrams = ("min_word_texts and min_char_texts (higher)", "char_ngrams")
    parts = [
        Part("n-grams", "always", features * _DICT_ENTRY if sizes.text_bytes else 0, settings=ngrams),
        Part("features of texts", "always", entries * 8 + (sizes.num_texts * 8 if entries else 0), settings=ngrams),
        # Counts of words and of characters, their concatenation and its weighted copy stand side by side.
        Part("finding features", "features", entries * 28 if sizes.text_bytes else 0, settings=ngrams),
    ]
    if "bag" in config.encoder:
        table = features * (config.dim * 4 * 2 + 4)
        parts += [
            Part("features of texts for batches", "always", entries * 12, on_device=True, settings=ngrams),
            Part(
                "encoder's table, momentum, second moment", "always", table, on_device=True, settings=("dim", *ngrams)
            ),
        ]
    if (transformer := sizes.transformer) is not None:
        # Weights, gradients and two moments; a frozen one has weights alone.
        held = transformer.num_parameters * (4 if config.frozen else 16)
        tokens = config.batch_size * config.max_tokens
        activations = 0 if config.frozen else transformer.activation_bytes(tokens, config.max_tokens, config)
        lower = ("batch_size with accumulation_steps higher", "max_tokens", "gradient_checkpointing")
        parts += [
            Part("transformer, gradients, moments", "always", held, on_device=True, settings=("frozen",)),
            Part("transformer's activations", "stage 1", activations, on_device=True, settings=lower),
            Part("transformer's activations", "stage 2", activations, on_device=True, settings=lower),
        ]
    return parts


def _network_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    assert config.num_clusters is not None
    num_labels, num_clusters, dim = sizes.num_labels, config.num_clusters, embedding_dim(config, sizes)
    width = 2 if config.label_dtype == "bfloat16" else 4
    row = num_labels * dim * width
    lower = (
        *(("label_dtype = bfloat16",) if config.device == "cpu" else ()),
        *(("dim",) if "bag" in config.encoder else ()),
    )
    own, kept = _row_lengths(config, num_labels)
    # Labels, their slots, logits and their two moments; and what torch computes weights with on other devices.
    learned = num_clusters * kept * (8 + 12 + (0 if config.device == "cpu" else 28))
    lower_kept = ("labels_per_cluster", "num_clusters")
    return [
        Part("cluster classifiers, gradients, moments", "training", num_clusters * dim * 16, on_device=True),
        Part("label classifiers", "training", row + num_labels * 4, on_device=True, settings=lower),
        Part("label classifiers' momentum", "training", row + num_labels * 4, on_device=True, settings=lower),
        Part("label classifiers' second moments", "training", num_labels * 8, on_device=True),
        Part("adjacency", "until stage 2", (num_clusters * own + num_labels) * 4, on_device=True),
        Part("adjacency, its logits and moments", "from stage 2 on", learned, on_device=True, settings=lower_kept),
        Part("labels' best clusters and places", "training", num_labels * 16, on_device=True),
    ]


def _row_lengths(config: Config, num_labels: int) -> tuple[int, int]:
    """The adjacency's labels per cluster in stage 1 and in stage 2."""
    assert config.num_clusters is not None
    own = math.ceil(num_labels / config.num_clusters)
    return own, min(num_labels, max(own, config.labels_per_cluster))


def _step_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """Scratch of a step: scores of clusters, paths of the beam, pairs of the shortlist, gradients of rows.

    On a CPU the core looks at a few queries' paths at a time, and updates rows without keeping gradients unless
    several parts add up to a step.
    """
    assert config.num_clusters is not None
    on_cpu = config.device == "cpu"
    kept_gradients = 0 if on_cpu and config.accumulation_steps == 1 else config.accumulation_steps
    num_clusters, dim = config.num_clusters, embedding_dim(config, sizes)
    beam = min(num_clusters, config.train_beam_size + EXTRA_CLUSTERS)
    parts = []
    for phase, row_length in zip(("stage 1", "stage 2"), _row_lengths(config, sizes.num_labels), strict=True):
        paths = beam * row_length
        pairs = min(config.train_shortlist_size, paths)
        rows = min(sizes.num_labels, config.batch_size * pairs)
        scratch = config.batch_size * (num_clusters * 16 + paths * (1 if on_cpu else 40) + pairs * 64 + dim * 32)
        scratch += kept_gradients * rows * dim * 4
        lower = ("batch_size", "train_shortlist_size", "train_beam_size")
        parts.append(Part("a step", phase, scratch, on_device=True, settings=lower))
    return parts


def _passing_parts(config: Config, sizes: ModelSizes) -> list[Part]:
    """What is held for a while only."""
    assert config.num_clusters is not None
    num_texts, num_labels, dim = sizes.num_texts, sizes.num_labels, embedding_dim(config, sizes)
    per_text = sizes.num_entries / max(1, num_texts)
    # A label's centroid keeps the largest features of its texts; dense ones are bfloat16. Each thread and each part of
    # a large split has sums of both sides. Beside them are the texts by label.
    centroids = int(min(sizes.num_pairs * per_text, num_labels * MAX_CENTROID_ENTRIES)) * 8
    centroids += num_labels * sizes.input_dim * 2 + sizes.num_features * 8 * 24 + sizes.num_pairs * 8 + num_labels * 40
    beam_entries = num_texts * min(config.num_clusters, config.train_beam_size)
    # M by text and by cluster, and the products of some clusters.
    products = min(beam_entries * sizes.num_pairs // max(1, num_texts), PRODUCTS_AT_ONCE)
    counts = beam_entries * 24 + products * 16 + num_labels * 24
    _, kept = _row_lengths(config, num_labels)
    # The adjacency as CSR; the rest is written block by block, and mapped.
    index = _BLOCKS + config.num_clusters * kept * 24
    return [
        Part("centroids of labels", "clustering", centroids, settings=("min_char_texts (higher)",)),
        Part("first label classifiers", "stage 1", min(num_labels * dim * 4, LARGEST_BLOCK)),
        Part("texts' scores by cluster and label", "between the stages", counts),
        Part("the adjacency's entries", "between the stages", config.num_clusters * kept * 40),
        Part("the index", "export", index),
    ]


def sizes_of(data: TrainingSet, config: Config) -> ModelSizes:
    """The sizes of a training set and the encoder over it; n-grams are counted in a sample of the texts."""
    num_texts, num_labels = data.labels.shape
    sizes = ModelSizes(num_texts, num_labels, data.labels.nnz, transformer=transformer_sizes(config))
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
        matrix = TextFeatures(config.features).fit_transform(texts)
    except DataError:
        return 0, 0
    return matrix.shape[1], matrix.nnz


def check_memory(account: MemoryAccount) -> None:
    """Raises a ConfigError if a run takes more memory than there is; the text says which settings lower it."""
    available = available_memory()
    if available is not None:
        needed = (account.peak() - account.present()) * distributed.processes_here()
        _check(account, needed, available, on_device=False)
    if account.device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        _check(account, account.peak(on_device=True), free, on_device=True)


def _check(account: MemoryAccount, needed: int, available: int, *, on_device: bool) -> None:
    if needed <= available:
        return
    where = f"of {account.device} memory" if on_device else "of memory"
    phase = max(_PHASES, key=lambda phase: account.held(phase, on_device=on_device))
    separate = account.device != "cpu"
    parts = [part for part in account.parts if phase in _SPANS[part.span]]
    parts = [part for part in parts if (part.on_device and separate) == on_device]
    largest = sorted(parts, key=lambda part: -part.num_bytes)[:3]
    named = ", ".join(f"{part.name} ({shown_bytes(part.num_bytes)})" for part in largest)
    settings = ", ".join(dict.fromkeys(name for part in largest for name in part.settings))
    raise ConfigError(
        f"training needs about {shown_bytes(needed)} {where}, but {shown_bytes(available)} are available. "
        f"Most is taken by: {named}."
        + (f" What lowers it: {settings}." if settings else "")
        + " To try anyway: --ignore-memory, or check_memory=False."
    )


def available_memory() -> int | None:
    """Bytes of memory that this process may still take; None where the system doesn't say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def available_line() -> str:
    """What is available, as a line below an account's."""
    available = available_memory()
    return _line("available", "", "unknown" if available is None else shown_bytes(available))


def _line(name: str, span: str, amount: str) -> str:
    return f"{name:<44}{span:<20}{amount:>12}"


def shown_bytes(num_bytes: int) -> str:
    """A number of bytes for people."""
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:,.0f} MiB"
    return f"{num_bytes / 2**30:,.1f} GiB"
