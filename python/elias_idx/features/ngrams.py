"""n-grams of sequences of symbols: of words in texts, or of characters in words.

R sequences of T symbols in all, A known symbols, G known n-grams, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Sequences laid end to end.

    Attributes:
        symbols: the distinct ones.
        numbers: of each symbol in its turn, its place among `symbols`, [T].
        offsets: where each sequence starts, and T, [R + 1].
    """

    symbols: Sequence[str]
    numbers: Ints
    offsets: Ints

    def counts(self, positions: Ints, ids: Ints, num_ids: int) -> sp.csr_matrix:
        """How often each sequence has each id, float32 CSR [R, num_ids], of ids at ascending positions."""
        shape = (len(self.offsets) - 1, num_ids)
        ones, indptr = np.ones(len(ids), np.float32), np.searchsorted(positions, self.offsets)
        matrix = sp.csr_matrix((ones, ids.astype(np.int32), indptr), shape)
        matrix.sum_duplicates()
        return matrix


@dataclass(frozen=True)
class Ngrams:
    """Known n-grams, the shortest ones first.

    With an n-gram its first n − 1 symbols are known too: an n-gram's key is their number among the (n−1)-grams times A,
    plus the number of its last symbol.

    Attributes:
        symbols: the A known ones, each of which is a 1-gram.
        keys: of the known n-grams for n = 2, 3, ..., each ascending.
        shortest: n of the shortest n-grams that count; those below only lead to longer ones.
    """

    symbols: Sequence[str]
    keys: Sequence[Ints]
    shortest: int

    def __len__(self) -> int:
        return sum([len(self.symbols), *map(len, self.keys)][self.shortest - 1 :])

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    def count(self, sequences: Sequences) -> sp.csr_matrix:
        """How often each sequence has each n-gram, float32 CSR [R, G]."""
        at = self.symbols_in(sequences)
        counts = [at.counts()] if self.shortest == 1 else []
        for keys in self.keys:
            at = at.followed(keys)
            if at.n >= self.shortest:
                counts.append(at.counts())
        return sp.hstack(counts, format="csr")

    def symbols_in(self, sequences: Sequences) -> Occurrences:
        """Where the sequences have known symbols."""
        known = np.fromiter((self._number_of.get(symbol, -1) for symbol in sequences.symbols), np.int64)
        symbols = known[sequences.numbers]
        positions = np.flatnonzero(symbols >= 0)
        ends = np.repeat(sequences.offsets[1:], np.diff(sequences.offsets))
        num_symbols = len(self.symbols)
        return Occurrences(sequences, symbols, num_symbols, ends, 1, positions, symbols[positions], num_symbols)


def fit_ngrams(
    sequences: Sequences,
    lengths: tuple[int, int],
    min_texts: int,
    in_texts: Callable[[sp.csr_matrix], sp.csr_matrix],
) -> tuple[Ngrams, sp.csr_matrix]:
    """Finds the n-grams that are in enough texts.

    Args:
        sequences: of the training texts.
        lengths: shortest and longest n.
        min_texts: in how many texts an n-gram must be.
        in_texts: gives the texts' counts, CSR [N, any], from the sequences' counts, CSR [R, any].

    Returns:
        The n-grams, and how often each text has each of them, CSR [N, G].
    """

    def frequent(counts: sp.csr_matrix) -> npt.NDArray[np.bool_]:
        return np.bincount(in_texts(counts).indices, minlength=counts.shape[1]) >= min_texts

    every = sequences.counts(np.arange(len(sequences.numbers)), sequences.numbers, len(sequences.symbols))
    symbols = [symbol for symbol, kept in zip(sequences.symbols, frequent(every), strict=True) if kept]
    at, keys = Ngrams(symbols, [], 1).symbols_in(sequences), []
    counts = [at.counts()] if lengths[0] == 1 else []
    while at.n < lengths[1]:
        positions, found = at.candidates()
        distinct, ids = np.unique(found, return_inverse=True)
        keys.append(distinct[frequent(sequences.counts(positions, ids, len(distinct)))])
        at = at.followed(keys[-1])
        if at.n >= lengths[0]:
            counts.append(at.counts())
    return Ngrams(symbols, keys, lengths[0]), in_texts(sp.hstack(counts, format="csr"))


@dataclass(frozen=True)
class Occurrences:
    """Where sequences have known n-grams of one n.

    Attributes:
        sequences: that have them.
        symbols: numbers of the known symbols in their turn, −1 for unknown ones, [T].
        num_symbols: A.
        ends: of the sequence that each position is in, [T].
        n: of the n-grams.
        positions: where they start, ascending.
        ids: their numbers.
        num_ids: how many are known.
    """

    sequences: Sequences
    symbols: Ints
    num_symbols: int
    ends: Ints
    n: int
    positions: Ints
    ids: Ints
    num_ids: int

    def counts(self) -> sp.csr_matrix:
        """How often each sequence has each n-gram."""
        return self.sequences.counts(self.positions, self.ids, self.num_ids)

    def candidates(self) -> tuple[Ints, Ints]:
        """Where a known n-gram stands before a known symbol of the same sequence, and the keys of both together."""
        inside = self.positions + self.n < self.ends[self.positions]
        positions, ids = self.positions[inside], self.ids[inside]
        following = self.symbols[positions + self.n]
        known = following >= 0
        return positions[known], ids[known] * self.num_symbols + following[known]

    def followed(self, keys: Ints) -> Occurrences:
        """The n-grams one symbol longer that have these keys."""
        positions, found = self.candidates()
        ids = np.searchsorted(keys, found)
        known = np.append(keys, -1)[ids] == found  # what is beyond all keys is at their end
        return replace(self, n=self.n + 1, positions=positions[known], ids=ids[known], num_ids=len(keys))
