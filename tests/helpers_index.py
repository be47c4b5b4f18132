"""Building indexes for tests."""

from typing import Any

from elias_idx import Index
from oracle import Parts


def build(parts: Parts, **changes: Any) -> Index:
    """An index of these parts, some of them changed."""
    return Index.build(**{**parts.build_args(), **changes})


def tolerance_of(index: Index) -> float:
    """By how much, relatively, scores may differ from the oracle's.

    A screened index sums the softmax's denominator from codes, which all scores of a query share.
    """
    return 2e-3 if index.screen else 1e-6


def names_for(parts: Parts) -> list[str]:
    """Unique names, some of them awkward."""
    names = [f"label {label}" for label in range(len(parts.label_bias))]
    names[:3] = ["", "Fièvre 🌡 typhoïde", "a\0b\n"][: len(names)]
    return names
