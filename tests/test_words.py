"""Words of texts, held to Python's own notions of letters, lower case and lines."""

import re
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elias_idx.features import Block, TextFeatures
from elias_idx.features.words import first_line, split_words

# What Python's version of Unicode knows; the core's may be newer.
ASSIGNED = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
TRICKY = "ΣσςİıßŐ'’.:\u00ad\u0301\u0345\u200dHΑα \n\r\t\x0b\x1c\x1f\x85\u2028_1½²Ⅷⓐ中\u093f"


def words_of(text):
    """Letters, numbers and underscores in a row, with combining marks behind any of them."""
    lower = text.lower()
    classes = "".join(
        "m" if unicodedata.category(char).startswith("M") else "w" if re.match(r"\w", char) else " " for char in lower
    )
    return [lower[match.start() : match.end()] for match in re.finditer("w[wm]*", classes)]


def test_every_character_is_what_python_takes_it_for():
    for start in range(0, len(ASSIGNED), 4096):
        text = " ".join(f"a{char}b {char}" for char in ASSIGNED[start : start + 4096])
        assert split_words(text) == words_of(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(TRICKY), st.sampled_from(ASSIGNED)), max_size=30).map("".join))
def test_words_are_pythons(text):
    assert split_words(text) == words_of(text)
    features = TextFeatures([Block("first_line", "word", (1, 1))]).fit(["0", text])
    assert features._fitted.parts()[0][0] == list(dict.fromkeys(["0", *words_of(first_line(text))]))


def test_lone_surrogates_separate_words():
    assert split_words("one\udc80two Ä\ud800") == ["one", "two", "ä"]
    features = TextFeatures([Block("text", "word", (1, 1))])
    matrix = features.fit_transform(["one\udc80two", "one two"])
    assert np.array_equal(matrix[0].toarray(), matrix[1].toarray())


@pytest.mark.parametrize("text", ["x" * 5_000_000, "ä " * 1_500_000])
def test_long_texts_are_read_to_their_end(text):
    features = TextFeatures([Block("text", "word", (1, 2)), Block("text", "char", (1, 2))])
    matrix = features.fit_transform([text + " end", "short", text])
    assert matrix[0].nnz > matrix[2].nnz > 0
