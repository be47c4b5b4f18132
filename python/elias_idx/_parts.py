"""What the bytes of an index are for."""

from __future__ import annotations

from collections.abc import Sequence

from elias_idx.index import Index

_PARTS = {
    "cluster": "clusters",
    "adjacency": "adjacency",
    "label_name": "label names",
    "label_text": "label texts",
    "label_counts": "fusion",
    "label": "label classifiers",
    "ranker": "ranker",
    "neighbour": "neighbours",
    "cooccurrence": "co-occurrence",
    "fusion": "fusion",
}  # by what a tensor's name starts with; the first counts


def memory_by_part(indexes: Sequence[Index]) -> dict[str, int]:
    """Bytes of indexes' tensors by what they are for, the most first; parts that there are none of are left out."""
    parts: dict[str, int] = {}
    for index in indexes:
        for name, nbytes in index.memory().items():
            part = next(part for start, part in _PARTS.items() if name.startswith(start))
            parts[part] = parts.get(part, 0) + nbytes
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def described_parts(parts: dict[str, int]) -> str:
    """The parts in MiB: "label classifiers 115.3, adjacency 1.9"."""
    return ", ".join(f"{part} {nbytes / 2**20:,.1f}" for part, nbytes in parts.items())
