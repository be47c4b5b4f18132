"""Words of lines for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things: "1 label", "1,200 labels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
