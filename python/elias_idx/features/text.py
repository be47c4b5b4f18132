"""Texts as sparse vectors: blocks of n-grams, weighted by tf-idf. N texts, F features, G n-grams of a block."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import Inputs, as_texts
from elias_idx.errors import DataError, FormatError
from elias_idx.features.blocks import Block
from elias_idx.features.ngrams import Ngrams, Sequences, fit_ngrams
from elias_idx.features.rows import scale_rows
from elias_idx.features.words import characters_of, first_line, words_of
from elias_idx.files import load_tensors, save_tensors


class TextFeatures:
    """Each block's n-grams with tf-idf: (1 + ln count) · idf, where idf = 1 + ln((1 + N) / (1 + texts that have it)).

    A text's n-grams of a block are given the block's weight as their length; then all of its n-grams together get unit
    length. A text without a known n-gram becomes a row of zeros.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self._fitted: list[_FittedBlock] = []

    @property
    def num_features(self) -> int:
        """F, the number of n-grams."""
        return sum(len(block.idf) for block in self._fitted)

    def fit_transform(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Learns the n-grams and their weights; returns the texts' float32 CSR matrix [N, F].

        A block without an n-gram that is in enough texts is empty.

        Raises:
            DataError: all blocks are.
        """
        fields = _Fields(texts)
        fits = [_fit(block, fields) for block in self.blocks]
        self._fitted = [fitted for fitted, _ in fits]
        if not self.num_features:
            raise DataError(
                "the training texts give no features: no n-gram is in enough of them; "
                "lower min_word_texts or min_char_texts if there are any words"
            )
        return self._joined([counts for _, counts in fits])

    def transform(self, inputs: Inputs) -> sp.csr_matrix:
        """The texts' float32 CSR matrix [N, F]; n-grams that `fit_transform` did not see are left out.

        Raises:
            DataError: the inputs are not all strings.
        """
        fields = _Fields(as_texts(inputs))
        return self._joined([fitted.count(fields) for fitted in self._fitted])

    def _joined(self, counts: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
        weighted = [fitted.weigh(own) for fitted, own in zip(self._fitted, counts, strict=True)]
        matrix = sp.hstack(weighted, format="csr")
        scale_rows(matrix)
        return matrix

    def save(self, folder: Path) -> None:
        """Writes `features.json` (blocks and their symbols) and `features.safetensors` (idf weights, n-grams)."""
        content = [{**asdict(fitted.block), "symbols": fitted.ngrams.symbols} for fitted in self._fitted]
        (folder / "features.json").write_text(json.dumps({"blocks": content}), encoding="utf-8")
        tensors = {"idf": np.concatenate([fitted.idf for fitted in self._fitted])}
        for place, fitted in enumerate(self._fitted):
            tensors |= {f"{place}.{n}": keys for n, keys in enumerate(fitted.ngrams.keys, 2)}
        save_tensors(folder / "features.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> TextFeatures:
        """Reads what `save` wrote.

        Raises:
            FormatError: a file is damaged.
            OSError: one can't be read.
        """
        content, path = _read_blocks(folder / "features.json"), folder / "features.safetensors"
        tensors = load_tensors(path)
        blocks, ngrams = [], []
        for place, (block, symbols) in enumerate(content):
            blocks.append(block)
            shortest, longest = block.ngrams
            names = [f"{place}.{n}" for n in range(2, longest + 1)]
            ngrams.append(Ngrams(symbols, [tensors[name] for name in names], shortest))
            _check_keys(path, names, ngrams[-1])
        idf, ends = tensors["idf"], np.cumsum([len(own) for own in ngrams])
        if idf.shape != (ends[-1],) or not np.isfinite(idf).all():
            raise FormatError(f"{path}: idf must be finite numbers of shape [{ends[-1]}]")
        features = cls(blocks)
        parts = zip(blocks, ngrams, np.split(idf, ends[:-1]), strict=True)
        features._fitted = [_FittedBlock(*part) for part in parts]
        return features


def _read_blocks(path: Path) -> list[tuple[Block, list[str]]]:
    """The blocks with their symbols.

    Raises:
        FormatError: the file does not describe any.
    """
    try:
        blocks = [_parsed_block(**settings) for settings in json.loads(path.read_text(encoding="utf-8"))["blocks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    if not blocks:
        raise FormatError(f"{path} is damaged: there are no blocks")
    return blocks


def _parsed_block(symbols: list[str], ngrams: list[int], **settings: Any) -> tuple[Block, list[str]]:
    shortest, longest = ngrams
    block = Block(ngrams=(shortest, longest), **settings)
    known = block.field in ("text", "first_line") and block.kind in ("word", "char")
    numbers = all(type(number) is int for number in (shortest, longest, block.min_texts)) and 1 <= shortest <= longest
    weighted = type(block.weight) in (int, float) and 0 <= block.weight < math.inf
    named = isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
    if not (known and numbers and weighted and named):
        raise ValueError(f"{block} is no block of n-grams, or its symbols are no strings")
    return block, symbols


def _check_keys(path: Path, names: Sequence[str], ngrams: Ngrams) -> None:
    num_prefixes = num_symbols = len(ngrams.symbols)
    for name, keys in zip(names, ngrams.keys, strict=True):
        low, high = (keys.min(), keys.max()) if len(keys) else (0, -1)
        if keys.dtype != np.int64 or low < 0 or high >= num_prefixes * num_symbols or (np.diff(keys) <= 0).any():
            raise FormatError(f"{path}: {name} must be ascending keys of n-grams, in int64")
        num_prefixes = len(keys)


class _Fields:
    """The words of texts and of their first lines, found when they are asked for."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def words(self, field: str) -> Sequences:
        return self._words if field == "text" else self._first_words

    @cached_property
    def _words(self) -> Sequences:
        return words_of(self._texts)

    @cached_property
    def _first_words(self) -> Sequences:
        return words_of(map(first_line, self._texts))


@dataclass(frozen=True)
class _FittedBlock:
    """A block with its n-grams and their idf, float32 [G]."""

    block: Block
    ngrams: Ngrams
    idf: npt.NDArray[np.float32]

    def count(self, fields: _Fields) -> sp.csr_matrix:
        """How often each text has each n-gram, [N, G]."""
        words = fields.words(self.block.field)
        if self.block.kind == "word":
            return self.ngrams.count(words)
        return _word_counts(words) @ self.ngrams.count(characters_of(words.symbols))

    def weigh(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        """tf-idf of counts, each row of the block's length; changes `counts`."""
        counts.sort_indices()
        np.log(counts.data, out=counts.data)
        counts.data += 1
        counts.data *= self.idf[counts.indices]
        scale_rows(counts, self.block.weight)
        return counts


def _fit(block: Block, fields: _Fields) -> tuple[_FittedBlock, sp.csr_matrix]:
    """The block with the texts' n-grams, and how often each text has each, [N, G]."""
    words = fields.words(block.field)
    if block.kind == "word":
        ngrams, counts = fit_ngrams(words, block.ngrams, block.min_texts, lambda counts: counts)
    else:
        per_text = _word_counts(words)
        characters = characters_of(words.symbols)
        ngrams, counts = fit_ngrams(characters, block.ngrams, block.min_texts, lambda counts: per_text @ counts)
    num_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = 1 + np.log((1 + counts.shape[0]) / (1 + num_texts))
    return _FittedBlock(block, ngrams, idf.astype(np.float32)), counts


def _word_counts(words: Sequences) -> sp.csr_matrix:
    """How often each text has each of the distinct words, [N, number of words]."""
    return words.counts(np.arange(len(words.numbers)), words.numbers, len(words.symbols))
