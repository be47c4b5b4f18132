"""JSON lines: one object `{"text": ..., "labels": [...], "relevance": [...]}` a line."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from elias_idx.data.contents import Contents
from elias_idx.data.groups import Group, group_of
from elias_idx.data.labels import LabelCollector, check_labels, check_relevances
from elias_idx.data.lines import check_text, json_line, numbered_lines, open_packed, parse_object
from elias_idx.errors import DataError
from elias_idx.files import replacing


@dataclass(frozen=True)
class Row:
    """One text, its labels, how relevant each of them is, in (0, 1], without relevances fully so, and its group."""

    text: str = ""
    labels: list[str] = field(default_factory=list)
    relevance: list[float] | None = None
    group: Group = None


def read_rows(
    path: str | PathLike[str], fields: Container[str] = ("text", "labels"), group_field: str | None = None
) -> Iterator[Row]:
    """Reads JSON lines; `.gz` and `.xz` are unpacked.

    Args:
        path: the file.
        fields: which of "text" and "labels" each row must have, the latter with an optional "relevance" beside it;
            the rest of a row is ignored.
        group_field: the field of the row's group.

    Raises:
        DataError: a line is no such object; the message says which line and what is wrong with it.
        OSError: the file can't be read.
    """
    for where, line in numbered_lines(Path(path)):
        yield _parse_row(parse_object(where, line), fields, group_field, where)


def _parse_row(row: dict[str, Any], fields: Container[str], group_field: str | None, where: str) -> Row:
    for name in ("text", "labels"):
        if name in fields and name not in row:
            raise DataError(f"{where}: the row has no {name!r}; it has {sorted(row)}")
    text = check_text(row["text"], "text", where) if "text" in fields else ""
    if "labels" not in fields:
        return Row(text)
    labels, relevance = row["labels"], row.get("relevance")
    if not isinstance(labels, list):
        raise DataError(f"{where}: 'labels' must be a list of strings, got {type(labels).__name__}")
    check_labels(labels, where)
    if relevance is not None:
        check_relevances(relevance, len(labels), where)
    return Row(text, labels, relevance, group_of(row, group_field, where))


def write_rows(path: str | PathLike[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line; the file appears when it is whole. `.gz` and `.xz` are packed."""
    with replacing(Path(path)) as partial, open_packed(partial, "wb") as file:
        for row in rows:
            file.write(json_line(row).encode() + b"\n")


def read_jsonl(path: Path, fields: Container[str], group_field: str | None = None) -> Contents:
    """The file's texts, labels and groups; labels are numbered in the order of their names."""
    texts: list[str] = []
    groups: list[Group] = []
    collector = LabelCollector()
    for number, row in enumerate(read_rows(path, fields, group_field), start=1):
        texts.append(row.text)
        collector.add(row.labels, row.relevance, f"{path}:{number}")
        if group_field is not None:
            groups.append(row.group)
    return Contents.of(fields, texts, *collector.finish(), groups)
