"""Rows of input files as Arrow record batches, a block at a time: Parquet, JSON lines, CSV and .npy.

Whatever a file's size, a reader holds one block of it. D dimensions.
"""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from elias_idx.arrow import check_columns, is_embedding, is_text
from elias_idx.data.lines import is_utf8, parse_object
from elias_idx.data.npy import NpyHeader, read_npy_header
from elias_idx.errors import DataError
from elias_idx.score.inputs import Format, InputFile

_BUFFER = 1 << 20
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_TEXT, _EMBEDDING = pa.large_string(), pa.list_(pa.float32())


@dataclass(frozen=True)
class Wanted:
    """What to read of each row.

    Attributes:
        column: the column of texts or embeddings.
        is_embedding: which of the two it is.
        keep: the columns to carry over.
        rows: rows of a block, at most.
    """

    column: str
    is_embedding: bool
    keep: tuple[str, ...]
    rows: int

    @property
    def columns(self) -> list[str]:
        """All columns to read."""
        return list(dict.fromkeys([self.column, *self.keep]))

    def schema_of(self, there: pa.Schema) -> pa.Schema:
        """The types that blocks have, given a file's own: texts are large strings, and no column has a dictionary.

        Raises:
            DataError: there is no such column, or it holds neither texts nor embeddings, whichever are wanted.
        """
        check_columns(self.columns, there.names)
        kinds = {name: there.field(name).type for name in self.columns}
        holds = is_embedding if self.is_embedding else is_text
        if not holds(kinds[self.column]):
            what = "lists of numbers" if self.is_embedding else "strings"
            raise DataError(f"column {self.column!r} must hold {what}, it holds {kinds[self.column]}")
        plain = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in kinds.items()}
        return pa.schema(plain if self.is_embedding else {**plain, self.column: _TEXT})


class Block(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        rows: the columns wanted.
        first: the number of the first row in the file.
        share: how much of the file is read with it, from 0 to 1.
    """

    rows: pa.RecordBatch
    first: int
    share: float


class Reader(Protocol):
    """Reads a file of one format."""

    def schema(self) -> pa.Schema:
        """The types that its blocks have unless they are told others."""

    def blocks(self, schema: pa.Schema, start: int) -> Iterator[Block]:
        """The rows from number `start` on, of the given types where the file's values can be turned into these."""


def read_schema(file: InputFile, wanted: Wanted) -> pa.Schema:
    """The types of the columns wanted of a file.

    JSON lines say neither columns nor types: the columns are those that the first rows have, and the types of what is
    kept follow from its first values, or are strings if these are null.

    Raises:
        DataError: as `read_blocks`.
        OSError: as `read_blocks`.
    """
    with _explained(file):
        return _READERS[file.format](file, wanted).schema()


def read_blocks(file: InputFile, wanted: Wanted, schema: pa.Schema, start: int = 0) -> Iterator[Block]:
    """The file's rows from number `start` on, with the types of `schema`.

    Raises:
        DataError: the file is damaged or not of its format, lacks a column or holds something else in it; the message
            names it, and the row where one is to blame.
        OSError: it can't be read.
    """
    with _explained(file):
        yield from _READERS[file.format](file, wanted).blocks(schema, start)


@contextmanager
def _unpacked(file: InputFile) -> Iterator[tuple[Any, Callable[[], float]]]:
    """The file's content, unpacked, and what says how much of the file is read, from 0 to 1."""
    with file.system.open_input_file(file.path) as source:
        opener = next((opener for suffix, opener in _OPENERS.items() if file.path.lower().endswith(suffix)), None)
        buffered = io.BufferedReader(source, _BUFFER)
        with opener(buffered) if opener else buffered as content:
            yield content, lambda: source.tell() / max(1, file.size)


@contextmanager
def _explained(file: InputFile) -> Iterator[None]:
    """Gives errors the file's name."""
    try:
        yield
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file.name}: can't be unpacked: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name}: not UTF-8: {error}") from error
    except (pa.ArrowException, DataError) as error:
        raise DataError(f"{file.name}: {error}") from error


@dataclass(frozen=True)
class _Parquet:
    file: InputFile
    wanted: Wanted

    def schema(self) -> pa.Schema:
        with self._open() as rows:
            return self.wanted.schema_of(rows.schema_arrow)

    def blocks(self, schema: pa.Schema, start: int) -> Iterator[Block]:
        with self._open() as rows:
            self.wanted.schema_of(rows.schema_arrow)
            groups = range(rows.num_row_groups)
            ends = list(itertools.accumulate(rows.metadata.row_group(group).num_rows for group in groups))
            left = [group for group in groups if ends[group] > start]
            if not left:
                return
            first = ends[left[0] - 1] if left[0] else 0
            for batch in rows.iter_batches(self.wanted.rows, left, columns=self.wanted.columns, use_threads=False):
                if first + len(batch) > start:
                    skipped = max(0, start - first)
                    block = batch.select(self.wanted.columns).slice(skipped).cast(schema)
                    yield Block(block, first + skipped, (first + len(batch)) / ends[-1])
                first += len(batch)

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with (
            self.file.system.open_input_file(self.file.path) as source,
            # Page by page, as a row group may be as large as the file.
            pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False) as rows,
        ):
            yield rows


@dataclass(frozen=True)
class _Npy:
    file: InputFile
    wanted: Wanted

    def schema(self) -> pa.Schema:
        with self.file.system.open_input_file(self.file.path) as source:
            header = self._header(source)
            kind = pa.from_numpy_dtype(header.dtype.newbyteorder("="))
            return pa.schema({self.wanted.column: pa.list_(kind, header.shape[1])})

    def blocks(self, schema: pa.Schema, start: int) -> Iterator[Block]:
        with self.file.system.open_input_file(self.file.path) as source:
            (num_rows, dim), dtype, _, numbers_start = self._header(source)
            row_bytes = dim * dtype.itemsize
            source.seek(numbers_start + start * row_bytes)
            for first in range(start, num_rows, self.wanted.rows):
                count = min(self.wanted.rows, num_rows - first)
                content = source.read(count * row_bytes)
                if len(content) < count * row_bytes:
                    raise DataError(f"the file has shrunk: it ends before row {first + len(content) // row_bytes}")
                numbers = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)
                column = pa.FixedSizeListArray.from_arrays(pa.array(numbers), dim)
                block = pa.record_batch([column], [self.wanted.column]).cast(schema)
                yield Block(block, first, (first + count) / num_rows)

    def _header(self, source: Any) -> NpyHeader:
        if self.wanted.columns != [self.wanted.column] or not self.wanted.is_embedding:
            raise DataError("an array holds embeddings alone: neither texts nor columns to keep")
        header = read_npy_header(source, source.size())
        if header.by_columns:
            raise DataError("the array is stored by columns: save np.ascontiguousarray(array)")
        return header


@dataclass(frozen=True)
class _Csv:
    """Every column is strings, so that what is kept stays as it is; an empty cell is null unless it has quotes."""

    file: InputFile
    wanted: Wanted

    def schema(self) -> pa.Schema:
        if self.wanted.is_embedding:
            raise DataError("CSV has no lists of numbers: store embeddings as Parquet or .npy")
        with _unpacked(self.file) as (text, _), self._open(text, None) as rows:
            return self.wanted.schema_of(pa.schema(dict.fromkeys(rows.schema.names, _TEXT)))

    def blocks(self, schema: pa.Schema, start: int) -> Iterator[Block]:
        self.schema()
        with _unpacked(self.file) as (text, share), self._open(text, self.wanted.columns) as batches:
            first = 0
            for batch in batches:
                if first + len(batch) > start:
                    skipped = max(0, start - first)
                    yield Block(batch.slice(skipped).cast(schema), first + skipped, share())
                first += len(batch)

    def _open(self, text: Any, columns: list[str] | None) -> Any:
        """Rows of the given columns as strings, or of all columns."""
        convert = csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns or [], _TEXT),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        read = csv.ReadOptions(use_threads=False, block_size=_BUFFER)
        return csv.open_csv(text, read, csv.ParseOptions(newlines_in_values=True), convert)


@dataclass(frozen=True)
class _JsonLines:
    file: InputFile
    wanted: Wanted

    def schema(self) -> pa.Schema:
        with _unpacked(self.file) as (lines, _):
            rows = [self._row(number, line) for number, line in enumerate(itertools.islice(lines, self.wanted.rows))]
        if rows:
            check_columns(self.wanted.columns, list(dict.fromkeys(itertools.chain.from_iterable(rows))))
        kinds = {name: _inferred_type(name, [row.get(name) for row in rows]) for name in self.wanted.columns[1:]}
        return pa.schema({self.wanted.column: _EMBEDDING if self.wanted.is_embedding else _TEXT, **kinds})

    def blocks(self, schema: pa.Schema, start: int) -> Iterator[Block]:
        with _unpacked(self.file) as (lines, share):
            numbered = itertools.islice(enumerate(lines), start, None)
            while part := list(itertools.islice(numbered, self.wanted.rows)):
                rows = [self._row(number, line) for number, line in part]
                yield Block(self._batch(rows, part[0][0], schema), part[0][0], share())

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        return parse_object(f"row {number}", line)

    def _batch(self, rows: list[dict[str, Any]], first: int, schema: pa.Schema) -> pa.RecordBatch:
        """The rows' columns, of which the first may have bad values: they become null."""
        values = [row.get(self.wanted.column) for row in rows]
        scored = _numbers(values, schema.field(0).type) if self.wanted.is_embedding else _texts(values)
        kept = [_kept([row.get(field.name) for row in rows], field, first) for field in list(schema)[1:]]
        return pa.RecordBatch.from_arrays([scored, *kept], schema=schema)


def _texts(values: list[Any]) -> pa.Array:
    return pa.array([value if isinstance(value, str) and is_utf8(value) else None for value in values], _TEXT)


def _numbers(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Lists of numbers; null for what is none."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        if len(values) == 1:
            return pa.nulls(1, kind)
        return pa.concat_arrays([_numbers([value], kind) for value in values])


def _inferred_type(name: str, values: list[Any]) -> pa.DataType:
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise DataError(f"the values of {name!r} can't be kept, as no type has them all: {error}") from error
    return pa.string() if pa.types.is_null(kind) else kind


def _kept(values: list[Any], field: pa.Field, first: int) -> pa.Array:
    """The values of a column to keep, whose type is given; `first` is the number of the first row."""
    try:
        # Not made of that type at once, which would cut 2.5 to 2.
        return pa.array(values).cast(field.type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        if len(values) > 1:
            return pa.concat_arrays([_kept([value], field, first + at) for at, value in enumerate(values)])
        raise DataError(
            f"row {first}: {field.name!r} does not fit {field.type}, as the first rows have it: {error}"
        ) from error


_READERS: dict[Format, Callable[[InputFile, Wanted], Reader]] = {
    "parquet": _Parquet,
    "jsonl": _JsonLines,
    "csv": _Csv,
    "npy": _Npy,
}
