"""Which n-grams of texts become features: blocks of one kind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Block:
    """n-grams of one kind, which are weighted by tf-idf and given a length of their own.

    Attributes:
        field: of a text, all of it or its first line, such as a title.
        kind: n-grams of words, or of characters within a word with a space on each side.
        ngrams: shortest and longest n.
        min_texts: in how many training texts an n-gram must be.
        weight: the block's length beside the other blocks'.
    """

    field: Literal["text", "first_line"]
    kind: Literal["word", "char"]
    ngrams: tuple[int, int]
    min_texts: int = 1
    weight: float = 1.0
