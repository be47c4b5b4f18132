"""Batches of all inputs in turn, cut so that a job that starts at any part gets the same ones."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from elias_idx.score.inputs import InputFile
from elias_idx.score.readers import Block, Wanted, read_blocks


class Position(NamedTuple):
    """A row among the inputs.

    Attributes:
        input: the file's number.
        row: the row's number in it; it may lie behind the last one.
    """

    input: int
    row: int


class Piece(NamedTuple):
    """Consecutive rows of one file."""

    file: InputFile
    start: Position
    rows: pa.RecordBatch


class Batch(NamedTuple):
    """Rows that are scored together, perhaps of several files.

    Attributes:
        pieces: the rows, in order.
        share: how much of all inputs is read with them, from 0 to 1.
    """

    pieces: tuple[Piece, ...]
    share: float

    @property
    def rows(self) -> pa.Table:
        """All rows."""
        return pa.Table.from_batches([piece.rows for piece in self.pieces])

    @property
    def end(self) -> Position:
        """The row after the last one."""
        last = self.pieces[-1]
        return Position(last.start.input, last.start.row + len(last.rows))

    def where(self, row: int) -> str:
        """The file and the number there of one of the rows."""
        for piece in self.pieces:
            if row < len(piece.rows):
                return f"{piece.file.name}, row {piece.start.row + row}"
            row -= len(piece.rows)
        raise IndexError(row)


def read_batches(
    files: Sequence[InputFile], wanted: Wanted, schema: pa.Schema, start: Position, part_rows: int
) -> Generator[Batch]:
    """The rows of all files from `start` on, where a part begins.

    Batches have `wanted.rows` rows each, but for the last one of each part and of all.

    Raises:
        DataError: as `read_blocks`.
        OSError: as `read_blocks`.
    """
    sizes = itertools.cycle(min(wanted.rows, part_rows - first) for first in range(0, part_rows, wanted.rows))
    size, share = next(sizes), 0.0
    pieces: list[Piece] = []
    missing = size
    for (file, start_of_rows, rows), share in _pieces(files, wanted, schema, start):
        row = start_of_rows.row
        while len(rows) >= missing:
            pieces.append(Piece(file, Position(start_of_rows.input, row), rows.slice(0, missing)))
            yield Batch(tuple(pieces), share)
            rows, row = rows.slice(missing), row + missing
            pieces, missing = [], next(sizes)
        if len(rows):
            pieces.append(Piece(file, Position(start_of_rows.input, row), rows))
            missing -= len(rows)
    if pieces:
        yield Batch(tuple(pieces), share)


def _pieces(
    files: Sequence[InputFile], wanted: Wanted, schema: pa.Schema, start: Position
) -> Iterator[tuple[Piece, float]]:
    """Blocks of all files as they are read, and how much of all files is read with each."""
    total = max(1, sum(file.size for file in files))
    before = sum(file.size for file in files[: start.input])
    for number, file in enumerate(files[start.input :], start.input):
        block: Block
        for block in read_blocks(file, wanted, schema, start.row if number == start.input else 0):
            piece = Piece(file, Position(number, block.first), block.rows)
            yield piece, (before + block.share * file.size) / total
        before += file.size
