"""Scoring Arrow record batches: what `elias-idx score` does with a table, for Ray, Spark and all that speaks Arrow.

Needs the extra `elias_idx[score]`.

    scorer = Scorer("model", text_column="text", keep=["id"])
    scored = scorer(batch)                                    # id, labels, scores

N rows, D dimensions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from elias_idx._arrays import as_count
from elias_idx.ensemble import Ensemble
from elias_idx.ensemble_index import EnsembleIndex
from elias_idx.errors import ConfigError, DataError, MissingExtraError
from elias_idx.index import Dtype, Index
from elias_idx.model import Model
from elias_idx.predictor import Predictor
from elias_idx.results import SearchResult

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types
except ModuleNotFoundError as missing:
    raise MissingExtraError(str(missing.name), "score") from missing

OnError = Literal["raise", "null"]
LABELS, SCORES = "labels", "scores"

_opening = threading.Lock()


class BadRowError(DataError):
    """A row that can't be scored.

    Attributes:
        row: its number within its batch, from 0.
        reason: what is wrong with it.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row, self.reason = row, reason

    def __str__(self) -> str:
        return f"row {self.row} of the batch: {self.reason}"


@dataclass(frozen=True)
class Scorer:
    """Finds the best labels of each row of record batches.

    It pickles as the model's path and the options. Each process opens the model when the first batch comes, once for
    all scorers of that path, and maps its index, so that processes on one host share the index's memory.

    Args:
        model: the folder of a model, an ensemble or a bare index; or one of these that is loaded already.
        text_column: the column of texts. Without it and `embedding_column`: "text", or "embedding" for an index or a
            model that takes embeddings.
        embedding_column: instead, the column of query embeddings, lists or fixed-size lists of D numbers. Of a model
            that takes texts they are what its `encode` gives, and its fusion is left out, as it needs the texts.
        keep: columns that are carried over.
        k: labels a row, at most.
        min_score: labels with a lower score are left out.
        beam_size: as in `Index.search`.
        shortlist_size: as in `Index.search`.
        num_threads: threads that encode and search at most; by default all CPUs that the process may use.
        dtype: what label weights are converted to, in the memory of each process, when the model is opened; by default
            they are used as they are stored.
        fusion: whether scores are those of the fusion, in a model that has one.
        calibrated: whether scores are probabilities, which `min_score` is then compared to, by a model that has
            a calibration; see `Predictor.calibrate`. Not for embeddings of a model that takes texts.
        on_error: what happens to a row that is null, of the wrong length, not UTF-8 or not finite: "raise" raises a
            `BadRowError`, "null" gives it null for labels and scores.

    Raises:
        ConfigError: options that are out of range or at odds with each other.
    """

    model: str | os.PathLike[str] | Predictor | Index
    text_column: str | None = None
    embedding_column: str | None = None
    keep: Sequence[str] = ()
    k: int = 10
    min_score: float | None = None
    beam_size: int | None = None
    shortlist_size: int | None = None
    num_threads: int | None = None
    dtype: Dtype | None = None
    fusion: bool = True
    calibrated: bool = False
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.text_column is not None and self.embedding_column is not None:
            raise ConfigError("there is a text column and an embedding column: give one of them")
        if isinstance(self.keep, str):
            raise ConfigError(f"keep must be a list of columns, got {self.keep!r}")
        if taken := {LABELS, SCORES}.intersection(self.keep):
            raise ConfigError(f"can't keep {sorted(taken)}, as results have columns of that name: rename the input's")
        if len(set(self.keep)) < len(self.keep):
            raise ConfigError(f"a column is to be kept twice: {list(self.keep)}")
        if self.on_error not in ("raise", "null"):
            raise ConfigError(f"on_error must be 'raise' or 'null', got {self.on_error!r}")
        if self.min_score is not None and np.isnan(self.min_score):
            raise ConfigError("min_score must be a number, got NaN")
        if self.dtype is not None and isinstance(self.model, (Predictor, Index)):
            raise ConfigError("dtype is for a model that is still to be opened: quantize the one that is there")
        for name in ("k", "beam_size", "shortlist_size", "num_threads"):
            if (value := getattr(self, name)) is not None:
                _check_count(name, value)

    @property
    def predictor(self) -> Predictor | Index:
        """What searches; it is opened when it is first asked for.

        Raises:
            FileNotFoundError: there is no such folder.
            FormatError: the folder is neither a model nor an index, or damaged.
        """
        if isinstance(self.model, (Predictor, Index)):
            return self.model
        with _opening:  # so that threads that come at once open it once
            return _open(Path(self.model).absolute(), self.dtype)

    @property
    def input_column(self) -> str:
        """The column that is scored."""
        if self.text_column is not None:
            return self.text_column
        return self.embedding_column or ("embedding" if self.takes_embeddings else "text")

    @property
    def takes_embeddings(self) -> bool:
        """Whether that column holds embeddings instead of texts.

        Raises:
            ConfigError: the model doesn't take what the named column holds.
        """
        if self.embedding_column is not None:
            return True
        needed = isinstance(self.predictor, Index) or self.predictor.takes_embeddings
        if needed and self.text_column is not None:
            raise ConfigError(
                f"this model takes embeddings, no texts: name their column instead of {self.text_column!r}"
            )
        return needed

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return list(dict.fromkeys([self.input_column, *self.keep]))

    @property
    def is_reentrant(self) -> bool:
        """Whether batches may be scored at the same time: not by a transformer, which is one for all threads."""
        searcher = self.predictor
        models = searcher.members if isinstance(searcher, Ensemble) else [searcher]
        kinds = [model.encoder.kind for model in models if isinstance(model, Model)]
        return self.takes_embeddings or not any("transformer" in kind for kind in kinds)

    def schema(self, rows: pa.Schema) -> pa.Schema:
        """The schema of the results: the columns kept, `labels` and `scores`.

        Labels are names, or ids of an index without names.

        Raises:
            ConfigError: probabilities are asked for and the model has none.
            DataError: there is no such column, or it holds something else.
        """
        check_columns(self.columns, rows.names)
        self._check_type(rows.field(self.input_column).type)
        if self.calibrated:
            self._check_calibration()
        return pa.schema(
            [
                *(rows.field(name) for name in self.keep),
                (LABELS, pa.list_(pa.string() if self._has_names else pa.int64())),
                (SCORES, pa.list_(pa.float32())),
            ]
        )

    def __call__(self, rows: pa.RecordBatch | pa.Table) -> Any:
        """The labels and scores of each row, best first, beside the columns kept; of the same kind as `rows`.

        Raises:
            BadRowError: a row is bad and `on_error` is "raise".
            DataError: a column is missing or of another type.
        """
        schema = self.schema(rows.schema)
        column = rows[self.input_column]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        given = self._embeddings(column) if self.takes_embeddings else self._texts(column)
        if given.bad and self.on_error == "raise":
            raise BadRowError(*min(given.bad.items()))
        lists = self._lists(self._search(given.inputs), len(rows), given.bad)
        return type(rows).from_arrays([*(rows[name] for name in self.keep), *lists], schema=schema)

    def map(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Scores one batch after the other: what Spark's `mapInArrow` takes."""
        return map(self, batches)

    def _search(self, inputs: Any) -> SearchResult:
        names = ("min_score", "beam_size", "shortlist_size", "num_threads")
        options = {name: getattr(self, name) for name in names}
        k = min(self.k, self._label_index.num_labels)
        searcher = self.predictor
        if isinstance(searcher, Predictor) and self._has_own_inputs:
            return searcher._found(inputs, k, fusion=self.fusion, calibrated=self.calibrated, **options)
        return self._embedding_index.search(inputs, k, **options)

    @property
    def _label_index(self) -> Index | EnsembleIndex:
        """What knows the labels."""
        searcher = self.predictor
        return searcher if isinstance(searcher, Index) else searcher._index

    @property
    def _embedding_index(self) -> Index | EnsembleIndex:
        """What embeddings are searched in; a ConfigError for an ensemble of different encoders, which has none."""
        searcher = self.predictor
        return searcher.index if isinstance(searcher, (Model, Ensemble)) else self._label_index

    @property
    def _has_names(self) -> bool:
        index = self._label_index
        return isinstance(index, EnsembleIndex) or index.label_names is not None

    def _check_type(self, kind: pa.DataType) -> None:
        """Raises a DataError unless the model takes a column of that type."""
        if not self.takes_embeddings:
            if not is_text(kind):
                raise DataError(f"column {self.input_column!r} must hold strings, it holds {kind}")
            return
        if not is_embedding(kind):
            raise DataError(f"column {self.input_column!r} must hold lists of numbers, it holds {kind}")
        if types.is_fixed_size_list(kind) and kind.list_size != (dim := self._embedding_index.dim):
            raise DataError(
                f"column {self.input_column!r} holds embeddings of {kind.list_size} numbers, the index takes {dim}"
            )

    @property
    def _has_own_inputs(self) -> bool:
        """Whether it is a model that gets what it was trained on: texts are not given as embeddings."""
        searcher = self.predictor
        return isinstance(searcher, Predictor) and self.takes_embeddings == searcher.takes_embeddings

    def _check_calibration(self) -> None:
        if not (isinstance(searcher := self.predictor, Predictor) and self._has_own_inputs):
            raise ConfigError("probabilities are of a model's texts: leave calibrated out where embeddings are scored")
        searcher._calibration(self.fusion)

    def _embeddings(self, column: pa.Array) -> _Given:
        """The embeddings of the good rows, float32 [N', D]."""
        dim = self._embedding_index.dim
        lengths = pc.list_value_length(column)
        fits = pc.fill_null(pc.equal(lengths, dim), False).to_numpy(zero_copy_only=False)
        good = np.flatnonzero(fits)
        bad = {row: self._wrong_length(lengths[row].as_py(), dim) for row in np.flatnonzero(~fits).tolist()}
        lists = column.take(pa.array(good)) if bad else column
        with np.errstate(over="ignore"):  # too large for float32, which is found below
            numbers = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        rows = numbers.reshape(-1, dim)
        if not (finite := np.isfinite(rows).all(1)).all():
            reason = f"{self.input_column!r} holds a number that is null or not finite as float32"
            bad |= dict.fromkeys(good[~finite].tolist(), reason)
            rows = rows[finite]
        return _Given(rows, bad)

    def _wrong_length(self, length: int | None, dim: int) -> str:
        is_what = "is null" if length is None else f"has {length} numbers instead of {dim}"
        return f"{self.input_column!r} {is_what}"

    def _texts(self, column: pa.Array) -> _Given:
        """The good rows' texts."""
        try:
            texts = column.to_pylist()
        except UnicodeDecodeError:
            texts = [_decoded(item) for item in column]
        bad = {
            row: f"{self.input_column!r} is null or no valid string" for row, text in enumerate(texts) if text is None
        }
        return _Given([text for text in texts if text is not None] if bad else texts, bad)

    def _lists(self, found: SearchResult, num_rows: int, bad: Iterable[int]) -> tuple[pa.Array, pa.Array]:
        """Labels and scores as lists, one a row, null for bad ones; `found` has the good rows."""
        there = found.labels >= 0
        ids, scores = found.labels[there], found.scores[there]
        labels = pa.array(self._label_index.names(ids), pa.string()) if self._has_names else pa.array(ids)
        is_bad = np.zeros(num_rows, bool)
        is_bad[list(bad)] = True
        lengths = np.zeros(num_rows, np.int32)
        lengths[~is_bad] = there.sum(1)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        mask = pa.array(is_bad)
        return (
            pa.ListArray.from_arrays(offsets, labels, mask=mask),
            pa.ListArray.from_arrays(offsets, pa.array(scores), mask=mask),
        )


class _Given(NamedTuple):
    """What is searched for of a batch.

    Attributes:
        inputs: of the good rows.
        bad: number → what is wrong, of the others.
    """

    inputs: Any
    bad: dict[int, str]


def check_columns(columns: Iterable[str], there: Collection[str]) -> None:
    """Raises a DataError that names the first of the columns that isn't there."""
    for name in columns:
        if name not in there:
            raise DataError(f"there is no column {name!r}; there are {', '.join(there) or 'none'}")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of that type may hold texts."""
    plain = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(plain) or types.is_large_string(plain)


def is_embedding(kind: pa.DataType) -> bool:
    """Whether a column of that type may hold embeddings."""
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


@lru_cache(maxsize=4)
def _open(path: Path, dtype: Dtype | None) -> Predictor | Index:
    """Opens a folder of a model or of a bare index, in the given dtype."""
    opened = Index.load(path) if (path / "index.json").is_file() else Model.load(path)
    return opened if dtype is None else opened.quantize(dtype)


def _decoded(text: pa.Scalar) -> str | None:
    try:
        return text.as_py()
    except UnicodeDecodeError:
        return None


def _check_count(name: str, value: int) -> None:
    try:
        as_count(name, value)
    except ValueError as error:
        raise ConfigError(str(error)) from error
