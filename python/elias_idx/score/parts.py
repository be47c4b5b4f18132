"""Results as Parquet files of a fixed number of rows, each of which appears when it is whole and on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from elias_idx.arrow import LABELS
from elias_idx.errors import FormatError
from elias_idx.files import replacing
from elias_idx.model import sha256
from elias_idx.score.batches import Position
from elias_idx.score.manifest import Manifest, Part

_PATTERN = "part-*.parquet"
_GROUP_ROWS = 32768


class Scored(NamedTuple):
    """Results of a batch.

    Attributes:
        rows: the results.
        end: the input row after them.
        share: how much of all inputs is read with them, from 0 to 1.
    """

    rows: pa.Table
    end: Position
    share: float


def write_part(folder: Path, number: int, schema: pa.Schema, results: Iterator[Scored], part_rows: int) -> Part | None:
    """Writes the next results as one part, until it has all its rows or none are left; None if there are none at all.

    Raises:
        OSError: it can't be written.
    """
    if (result := next(results, None)) is None:
        return None
    path = folder / _name(number)
    count = null_rows = 0
    with replacing(path) as partial:
        with pq.ParquetWriter(partial, schema) as writer:
            group: list[pa.Table] = []
            while result is not None:
                group.append(result.rows)
                count += len(result.rows)
                null_rows += result.rows[LABELS].null_count
                end = result.end
                if sum(map(len, group)) >= _GROUP_ROWS:
                    writer.write_table(pa.concat_tables(group))
                    group = []
                result = next(results, None) if count < part_rows else None
            if group:
                writer.write_table(pa.concat_tables(group))
        checksum = sha256(partial)
    return Part(path.name, count, null_rows, checksum, end)


def write_empty_part(folder: Path, schema: pa.Schema) -> Part:
    """Writes the only part of a job without rows, which says what its columns are."""
    path = folder / _name(0)
    with replacing(path) as partial:
        pq.write_table(schema.empty_table(), partial)
        checksum = sha256(partial)
    return Part(path.name, 0, 0, checksum, Position(0, 0))


def check_parts(folder: Path, manifest: Manifest) -> None:
    """Compares the finished parts to their checksums.

    Raises:
        FormatError: one is missing or another one than was written.
    """
    for part in manifest.parts:
        path = folder / part.file
        if not path.is_file() or sha256(path) != part.sha256:
            raise FormatError(f"{path} is gone or has changed since it was written: --overwrite starts over")


def remove_other_parts(folder: Path, manifest: Manifest) -> None:
    """Removes what earlier runs left: parts that the manifest doesn't have, and unfinished files."""
    known = {part.file for part in manifest.parts}
    for path in [*folder.glob(_PATTERN), *folder.glob(".*.partial.*")]:
        if path.name not in known:
            path.unlink()


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"
