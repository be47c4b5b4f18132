"""Texts as sparse vectors: blocks of n-grams, weighted by tf-idf. N texts, F features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import _core
from elias_idx._arrays import as_count_if_given
from elias_idx.data import Inputs, as_texts
from elias_idx.errors import DataError, FormatError
from elias_idx.features.blocks import Block
from elias_idx.files import load_tensors, save_tensors

# More than a block of features is ever given.
_LARGEST = 2**31


class TextFeatures:
    """Each block's n-grams with tf-idf: (1 + ln count) · idf, where idf = 1 + ln((1 + N) / (1 + texts that have it)).

    A text's n-grams of a block are given the block's weight as their length; then all of its n-grams together get unit
    length. A text without a known n-gram becomes a row of zeros.

    Words are letters, numbers and underscores in a row, with combining marks behind any of them, in lower case. What a
    letter, a number or a mark is, and its lower case, is said by the core's tables of Unicode, whichever Python runs.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self._fitted: _core.TextFeatures | None = None

    @property
    def num_features(self) -> int:
        """F, the number of n-grams."""
        return 0 if self._fitted is None else self._fitted.num_features

    def fit(self, texts: Sequence[str], num_threads: int | None = None) -> TextFeatures:
        """Learns the n-grams and their weights; returns itself.

        Goes over the texts once for each length of n-grams. Takes memory for the distinct n-grams, not for the texts.
        A block without an n-gram that is in enough texts is empty.

        Args:
            texts: N of them.
            num_threads: CPU threads at most; by default all that the process may use.

        Raises:
            DataError: all blocks are empty.
        """
        num_threads = as_count_if_given("num_threads", num_threads)
        fitted = _core.TextFeatures.fit(list(map(_settings, self.blocks)), texts, num_threads)
        if not fitted.num_features:
            raise DataError(
                "the training texts give no features: no n-gram is in enough of them; "
                "lower min_word_texts or min_char_texts if there are any words"
            )
        self._fitted = fitted
        return self

    def fit_transform(self, texts: Sequence[str], num_threads: int | None = None) -> sp.csr_matrix:
        """`fit`, then `transform`."""
        return self.fit(texts, num_threads).transform(texts, num_threads)

    def transform(self, inputs: Inputs, num_threads: int | None = None) -> sp.csr_matrix:
        """The texts' float32 CSR matrix [N, F]; n-grams that `fit` did not see are left out.

        Args:
            inputs: N texts. Lone surrogates in them separate words.
            num_threads: CPU threads at most; by default all that the process may use.

        Raises:
            DataError: the inputs are not all strings.
        """
        texts = as_texts(inputs)
        if self._fitted is None:
            raise ValueError("fit the features before they transform texts")
        num_threads = as_count_if_given("num_threads", num_threads)
        indptr, indices, data = self._fitted.transform(texts, num_threads)
        matrix = sp.csr_matrix((data, indices, indptr), shape=(len(texts), self.num_features))
        matrix.has_canonical_format = True
        return matrix

    def __getstate__(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "parts": None if self._fitted is None else self._fitted.parts()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.blocks = state["blocks"]
        self._fitted = None if state["parts"] is None else _joined(self.blocks, state["parts"])

    def save(self, folder: Path) -> None:
        """Writes `features.json` (blocks and their symbols) and `features.safetensors` (idf weights, n-grams)."""
        assert self._fitted is not None
        content, idfs = [], []
        tensors: dict[str, npt.NDArray[Any]] = {}
        for place, (block, (symbols, keys, idf)) in enumerate(zip(self.blocks, self._fitted.parts(), strict=True)):
            content.append({**asdict(block), "symbols": symbols})
            tensors |= {f"{place}.{n}": own for n, own in enumerate(keys, 2)}
            idfs.append(idf)
        (folder / "features.json").write_text(json.dumps({"blocks": content}), encoding="utf-8")
        save_tensors(folder / "features.safetensors", {"idf": np.concatenate(idfs), **tensors})

    @classmethod
    def load(cls, folder: Path) -> TextFeatures:
        """Reads what `save` wrote.

        Raises:
            FormatError: a file is damaged.
            OSError: one can't be read.
        """
        content, path = _read_blocks(folder / "features.json"), folder / "features.safetensors"
        tensors = load_tensors(path)
        try:
            keys = [_keys(tensors, place, block) for place, (block, _) in enumerate(content)]
            ends = np.cumsum([
                sum([len(symbols), *map(len, own)][block.ngrams[0] - 1 :])
                for (block, symbols), own in zip(content, keys, strict=True)
            ])  # fmt: skip
            idf = tensors["idf"]
            if idf.dtype != np.float32 or idf.shape != (ends[-1],) or not np.isfinite(idf).all():
                raise ValueError(f"idf must be finite numbers of shape [{ends[-1]}]")
            features = cls([block for block, _ in content])
            parts = zip((symbols for _, symbols in content), keys, np.split(idf, ends[:-1]), strict=True)
            features._fitted = _joined(features.blocks, parts)
        except (KeyError, ValueError) as error:
            raise FormatError(f"{path} is damaged: {error}") from error
        return features


def _keys(tensors: Mapping[str, npt.NDArray[Any]], place: int, block: Block) -> list[npt.NDArray[np.int64]]:
    """The keys of a block's n-grams for n = 2, 3, ..."""
    keys = {name: tensors[name] for name in (f"{place}.{n}" for n in range(2, block.ngrams[1] + 1))}
    for name, own in keys.items():
        if own.dtype != np.int64 or own.ndim != 1:
            raise ValueError(f"{name} must be ascending keys of n-grams, in int64")
    return list(keys.values())


def _joined(blocks: Sequence[Block], parts: Iterable[Any]) -> _core.TextFeatures:
    """The core's features: blocks with their symbols, keys and idf."""
    return _core.TextFeatures.from_parts(list(zip(map(_settings, blocks), parts, strict=True)))


def _settings(block: Block) -> tuple[str, str, int, int, int, float]:
    return block.field, block.kind, *block.ngrams, block.min_texts, block.weight


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
    weighted = type(block.weight) in (int, float) and 0 <= block.weight <= _LARGEST
    named = isinstance(symbols, list) and {str}.issuperset(map(type, symbols))
    if not (known and numbers and 0 <= block.min_texts <= _LARGEST and weighted and named):
        raise ValueError(f"{block} is no block of n-grams, or its symbols are no strings")
    return block, symbols
