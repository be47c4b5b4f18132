"""Texts as words."""

from __future__ import annotations

from elias_idx._core import split_words

__all__ = ["first_line", "split_words"]


def first_line(text: str) -> str:
    """The first line that isn't blank."""
    return text.lstrip().partition("\n")[0]
