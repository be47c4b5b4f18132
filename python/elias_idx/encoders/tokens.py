"""Texts as token ids, laid out for a transformer. N texts, E tokens in all; Q texts at once, T tokens at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

# On a CPU as many as its caches like (512 to 2048 take the same time, 4096 half as much again), elsewhere enough to
# keep it busy.
_TOKENS_AT_ONCE = {"cpu": 1024}
_TOKENS_AT_ONCE_ELSEWHERE = 8192


@dataclass(frozen=True)
class Tokens:
    """The token ids of N texts, one text after another.

    Attributes:
        ids: [E], of any unsigned dtype; may be a mapped file.
        offsets: int64 [N + 1], where each text's tokens start and end; every text has one at least.
        padding: the id to fill up with.
    """

    ids: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]
    padding: int

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, [N]."""
        return np.diff(self.offsets)

    def rectangle(self, texts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The ids of the given texts (their numbers, [Q]), padded on the right, and 1 where there are any; [Q, T]."""
        places = np.arange(self.lengths[texts].max())
        present = places < self.lengths[texts, None]
        ids = np.full(present.shape, self.padding, np.int64)
        ids[present] = self.ids[(self.offsets[texts, None] + places)[present]]
        return ids, present.astype(np.int64)


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> Tokens:
    """The texts' tokens with those that mark its ends, cut off after `max_tokens`.

    A text without any, as some tokenizers make of an empty one, becomes a single padding token.

    Args:
        tokenizer: a fast one of transformers.
        texts: N texts.
        max_tokens: of a text.
    """
    padding = padding_id(tokenizer)
    # Tokenizers take no lone surrogates, which become question marks as in features.
    given = [text.encode(errors="replace").decode() for text in texts]
    options = {"truncation": True, "max_length": max_tokens, "padding": False, "return_attention_mask": False}
    rows = tokenizer(given, **options)["input_ids"]
    rows = [row or [padding] for row in rows]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.fromiter((token for row in rows for token in row), id_dtype(tokenizer), int(offsets[-1]))
    return Tokens(ids, offsets, padding)


def tokens_at_once(device: str) -> int:
    """Tokens that go through a transformer together on a device of that type."""
    return _TOKENS_AT_ONCE.get(device, _TOKENS_AT_ONCE_ELSEWHERE)


def padding_id(tokenizer: Any) -> int:
    """The id to pad with; 0 where the tokenizer has none, since what is padded is masked."""
    return tokenizer.pad_token_id or 0


def id_dtype(tokenizer: Any) -> type[np.unsignedinteger]:
    """The smallest dtype that holds all of the tokenizer's ids."""
    return np.uint16 if len(tokenizer) <= 2**16 else np.uint32


def batches_by_length(lengths: npt.NDArray[np.int64], most_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Splits texts into batches of like length, the longest first, so that little is padded.

    Args:
        lengths: tokens of each text, [N].
        most_tokens: a batch may have, padding included, unless it is a single text.

    Yields:
        The positions of a batch's texts.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, most_tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count
