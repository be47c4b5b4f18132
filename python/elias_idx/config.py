"""The settings of a training run: one flat dataclass, read from TOML, every field an option of the command line."""

from __future__ import annotations

import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from elias_idx.errors import ConfigError
from elias_idx.features import Block

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "preset": ("fast", "full"),
    "encoder": ("bag", "transformer", "bag+transformer", "precomputed"),
    "pooling": ("mean", "cls", "pooler"),
    "precision": ("float32", "bfloat16"),
    "cluster_by": (None, "sparse", "dense", "both"),
    "adjacency_start": ("partition", "counts", "uniform"),
    "stage2_label_start": ("keep", "centroids"),
    "label_dtype": ("float32", "bfloat16"),
}


# What tells the best epoch: the mean of P@1, P@3, P@5 and R@10, or one metric.
_DEV_METRIC = re.compile(r"mean|(P|nDCG|R|PSP|PSnDCG)@[1-9]\d{0,5}")

# What only an encoder with a transformer has.
_OF_TRANSFORMERS = (
    "transformer",
    "pooling",
    "max_tokens",
    "frozen",
    "transformer_learning_rate",
    "gradient_checkpointing",
    "precision",
)


# As the core has it.
_LONGEST_NGRAM = 100
_NGRAMS = ("word_ngrams", "char_ngrams", "title_word_ngrams", "title_char_ngrams")

_NO_SUCH_FEATURES = {("bag", "dense"), ("bag", "both"), ("precomputed", "sparse"), ("precomputed", "both")}


def _setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


def _following(text: str, low: float) -> Any:
    """A setting that follows from the data where it is left out: `train.auto` fills it in before anything reads it."""
    metadata = {"help": f"{text}; by default it follows from the data", "low": low, "high": None, "follows": True}
    return field(default=None, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """Settings, with defaults that were chosen on held-out texts (see docs/experiments.md).

    Those that follow from the data are None until `elias_idx.train.auto.resolved` fills them in.
    """

    preset: str = _setting("full", "fast (the dense model alone) or full (all that makes it better)")
    ranker_cost: float = _setting(1.0, "cost of an error of the sparse ranker beside the size of its weights", 1e-6)
    ranker_weights: int = _setting(1000, "weights that the sparse ranker keeps for a label on average, at most", 1)
    num_candidates: int = _setting(200, "labels of a dense search that the fusion scores", 1)
    num_neighbours: int = _setting(100, "nearest training texts whose labels the fusion looks at", 1)

    encoder: str = _setting(
        "bag", "bag (of n-grams), transformer, bag+transformer or precomputed (embeddings from a file)"
    )
    dim: int = _following("embedding size of the bag encoder", 1)
    label_dim: int | None = _setting(
        None,
        "size that embeddings are projected to for the label classifiers; without it there is no projection",
        1,
    )
    dropout: float = _setting(0.1, "dropout on the embedding", 0, 0.999)
    embedding_norm: float = _setting(8.0, "length that each embedding is given, unless precomputed", 1e-6)
    word_ngrams: tuple[int, int] = _following("shortest and longest word n-gram, or 0 0 for none", 0)
    char_ngrams: tuple[int, int] = _following("shortest and longest character n-gram, or 0 0 for none", 0)
    title_word_ngrams: tuple[int, int] = _following("the same for the first line alone", 0)
    title_char_ngrams: tuple[int, int] = _following("the same for the first line alone", 0)
    min_word_texts: int = _following("training texts that a word must be in", 1)
    min_phrase_texts: int = _following("training texts that an n-gram of two words or more must be in", 1)
    min_char_texts: int = _following("training texts that a character n-gram must be in", 1)
    phrase_weight: float = _following("weight of n-grams of two words or more beside that of words", 0)
    char_weight: float = _setting(2.0, "weight of the text's character n-grams beside that of its words", 0)
    title_weight: float = _setting(0.5, "weight of the first line's words, and of its characters", 0)

    transformer: str | None = _setting(None, "name or folder of a Hugging Face encoder")
    pooling: str = _setting("mean", "how the transformer's token embeddings become one: mean, cls or pooler")
    max_tokens: int = _setting(128, "tokens of a text that the transformer reads", 1)
    frozen: bool = _setting(False, "whether the transformer keeps its weights: its embeddings are computed once")
    transformer_learning_rate: float = _setting(1e-4, "of the transformer in stage 1", 0)
    gradient_checkpointing: bool = _setting(False, "whether the transformer saves memory by computing things twice")
    precision: str = _setting("float32", "of the transformer's arithmetic in training: float32 or bfloat16")

    cluster_by: str | None = _setting(
        None,
        "what labels are clustered by: sparse (n-grams), dense (embeddings) or both; by default sparse for texts",
    )
    recluster_epochs: int = _setting(
        0, "epochs of a first stage 1, after which labels are clustered again by its embeddings too; 0 for none", 0
    )
    label_text_weight: float = _setting(
        1.0, "what a label's own text counts, beside its training texts, where clusters and classifiers start", 0
    )
    num_clusters: int | None = _setting(None, "clusters C; by default 2^ceil(log2(L / 100))", 1)
    labels_per_cluster: int = _following("labels kept per cluster, κ, in stage 2, beside its initial ones", 1)
    alpha: float = _setting(10.0, "factor α on the cluster softmax", 1e-6)
    beta: float | None = _setting(None, "factor β on the adjacency softmax; by default 0.75 L / C", 1e-6)
    adjacency_start: str = _setting("partition", "stage 2's first logits: partition, counts or uniform (at random)")
    stage2_label_start: str = _setting(
        "keep", "stage 2's first label classifiers: keep (stage 1's) or centroids (of their texts' embeddings)"
    )

    stage1_epochs: int = _following("epochs of stage 1", 1)
    stage2_epochs: int = _following("epochs of stage 2, or 0 to keep the fixed clusters", 0)
    averaged_epochs: int = _setting(
        0, "last epochs of stage 2 whose weights, but for the adjacency, are averaged; 0 for none", 0
    )
    batch_size: int = _following("texts in a batch", 1)
    accumulation_steps: int = _setting(1, "batches whose gradients are added up to one step", 1)
    train_beam_size: int = _following("beam B during training", 1)
    train_shortlist_size: int = _following("shortlist S during training", 1)
    learning_rate: float = _setting(3e-3, "of the encoder and the cluster classifiers", 0)
    label_learning_rate: float = _setting(6e-3, "of the label classifiers", 0)
    adjacency_learning_rate: float = _setting(0.05, "of the adjacency's logits", 0)
    stage2_learning_rate_factor: float = _setting(0.5, "on all but the adjacency's in stage 2", 0)
    weight_decay: float = _setting(0.01, "of the cluster classifiers and the encoder's dense layers", 0)
    warmup: float = _setting(0.1, "share of a stage's steps with a rising learning rate", 0, 1)
    path_loss_weight: float = _setting(1.7, "weight λ of the path loss beside the shortlist's, both sums", 0)
    label_bias: float = _setting(-2.0, "the label classifiers' first bias")
    label_dtype: str = _setting(
        "float32", "of the label classifiers and their momentum in training: float32 or bfloat16"
    )

    checkpoint_steps: int | None = _setting(
        None, "steps between checkpoints, beside those after epochs; by default one a minute at most, after epochs", 1
    )
    dev_metric: str = _setting(
        "mean", "what tells the best epoch on dev or held-out texts: mean (of P@1, P@3, P@5 and R@10) or a metric"
    )
    early_stopping: int | None = _setting(None, "epochs of a stage without a better dev metric that end it", 1)

    beam_size: int = _following("default beam B of the index", 1)
    shortlist_size: int = _following("default shortlist S of the index", 1)

    seed: int = _setting(0, "of everything random", 0, 2**63 - 1)
    device: str = _setting("cpu", "torch device to train on, such as cpu or cuda")
    num_threads: int | None = _setting(None, "CPU threads; by default those that the process may use", 1)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            if (value := getattr(self, item.name)) is None and item.metadata.get("follows"):
                continue
            value = _checked_type(item.name, value, hints[item.name])
            object.__setattr__(self, item.name, value)
            _check_range(item.name, value, item.metadata["low"], item.metadata["high"])
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        if not _DEV_METRIC.fullmatch(self.dev_metric):
            known = "mean, P@k, nDCG@k, R@k, PSP@k or PSnDCG@k"
            raise ConfigError(f"dev_metric must be {known} with k from 1 on, got {self.dev_metric!r}")
        for name in _NGRAMS:
            shortest, longest = getattr(self, name) or (0, 0)
            if shortest > longest or (shortest == 0) != (longest == 0):
                raise ConfigError(f"{name} must be a shortest and a longest n-gram, or 0 0: got {shortest} {longest}")
            if longest > _LONGEST_NGRAM:
                raise ConfigError(f"{name} must be at most {_LONGEST_NGRAM}, got {longest}")
        if all(getattr(self, name) == (0, 0) for name in _NGRAMS):
            raise ConfigError(f"{', '.join(_NGRAMS)} are all 0 0: there would be no features")
        self._check_transformer()
        if (self.encoder, self.cluster_by) in _NO_SUCH_FEATURES:
            raise ConfigError(
                f"cluster_by is {self.cluster_by}, but encoder {self.encoder} has no such features: leave it out"
            )
        if self.label_dtype == "bfloat16" and self.device != "cpu":
            raise ConfigError(f"label_dtype bfloat16 is for training on CPUs: leave it out for device {self.device!r}")

    def _check_transformer(self) -> None:
        if "transformer" in self.encoder:
            if self.transformer is None:
                raise ConfigError(
                    f"encoder is {self.encoder}, so transformer must name a Hugging Face encoder or a folder"
                )
            return
        defaults = {item.name: item.default for item in fields(self)}
        if unused := [name for name in _OF_TRANSFORMERS if getattr(self, name) != defaults[name]]:
            raise ConfigError(f"encoder is {self.encoder}, which has no transformer: leave out {', '.join(unused)}")

    @property
    def blocks(self) -> list[Block]:
        """The blocks of n-grams of each field: one of words, one of longer word n-grams, one of characters.

        The settings of n-grams must be filled in.
        """
        fields: dict[Literal["text", "first_line"], Any] = {
            "text": (self.word_ngrams, 1.0, self.char_ngrams, self.char_weight),
            "first_line": (self.title_word_ngrams, self.title_weight, self.title_char_ngrams, self.title_weight),
        }
        blocks = []
        for field_name, (words, weight, chars, char_weight) in fields.items():
            if words[0] == 1:
                blocks.append(Block(field_name, "word", (1, 1), self.min_word_texts, weight))
            if words[1] > 1:
                phrases = (max(2, words[0]), words[1])
                blocks.append(Block(field_name, "word", phrases, self.min_phrase_texts, weight * self.phrase_weight))
            if chars[1]:
                blocks.append(Block(field_name, "char", chars, self.min_char_texts, char_weight))
        return blocks

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Config:
        """A configuration from names and values.

        Raises:
            ConfigError: a name is unknown, or a value of the wrong type or out of range.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(settings.keys() - known):
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known are: {', '.join(sorted(known))}")
        return cls(**settings)

    @classmethod
    def from_toml(cls, path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> Config:
        """Reads a TOML file of settings; `overrides` take precedence.

        Raises:
            ConfigError: the file is no TOML, or see `from_mapping`.
            OSError: the file can't be read.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            return cls.from_mapping({**settings, **(overrides or {})})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def with_clusters(self, num_labels: int, default: int) -> Config:
        """This configuration with C and β filled in, for L labels.

        Raises:
            ConfigError: there are more clusters than labels.
        """
        num_clusters = self.num_clusters or default
        if num_clusters > num_labels:
            raise ConfigError(f"num_clusters is {num_clusters}, but the data has only {num_labels} labels")
        beta = self.beta if self.beta is not None else max(1.0, 0.75 * num_labels / num_clusters)
        return replace(self, num_clusters=num_clusters, beta=beta)


def _checked_type(name: str, value: Any, hint: Any) -> Any:
    """The value as the annotated type; whole numbers pass for floats and lists for pairs."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if typing.get_origin(option) is tuple:
            if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(part) is int for part in value):
                return tuple(value)
        elif type(value) is option:
            return value
    raise ConfigError(f"{name} must be {_describe(options)}, got {value!r}")


def _describe(options: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", types.NoneType: "left out"}
    return " or ".join(names.get(option, "two whole numbers") for option in options)


def _check_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, (int, float)):
            continue
        if not math.isfinite(part):
            raise ConfigError(f"{name} must be finite, got {part}")
        if low is not None and part < low:
            raise ConfigError(f"{name} must be at least {low:g}, got {part:g}")
        if high is not None and part > high:
            raise ConfigError(f"{name} must be at most {high:g}, got {part:g}")


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(filter(None, choices))}; got {value!r}")
