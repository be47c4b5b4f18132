"""Texts as words, and words as characters."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from elias_idx.features.ngrams import Sequences

# Beyond are ideographs, and planes without characters.
_MAY_BE_MARKS = (*range(0x20000), *range(0xE0100, 0xE01F0))


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    r"""Letters, digits and underscores in a row, with combining marks behind any of them.

    `\w` alone would cut words of Indian and other scripts at the marks that are their vowels.
    """
    marks = [code for code in _MAY_BE_MARKS if unicodedata.category(chr(code)).startswith("M")]
    runs = (list(run) for _, run in itertools.groupby(enumerate(marks), lambda item: item[1] - item[0]))
    ranges = "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)
    return re.compile(rf"\w+(?:[{ranges}]+\w*)*")


def words_of(texts: Iterable[str]) -> Sequences:
    """The texts' words in lower case."""
    find = _word_pattern().findall
    number_of: defaultdict[str, int] = defaultdict()
    number_of.default_factory = number_of.__len__
    numbers, offsets = array("q"), array("q", [0])
    for text in texts:
        numbers.extend(map(number_of.__getitem__, find(text.lower())))
        offsets.append(len(numbers))
    return Sequences(list(number_of), np.array(numbers), np.array(offsets))


def characters_of(words: Sequence[str]) -> Sequences:
    """The words' characters, with a space before and after each word."""
    joined = "".join(f" {word} " for word in words)
    codes = np.frombuffer(joined.encode("utf-32-le"), "<u4")
    distinct, numbers = np.unique(codes, return_inverse=True)
    lengths = np.fromiter((len(word) + 2 for word in words), np.int64, len(words))
    return Sequences(list(map(chr, distinct)), numbers, np.append(0, lengths.cumsum()))


def first_line(text: str) -> str:
    """The first line that isn't blank."""
    return text.lstrip().partition("\n")[0]
