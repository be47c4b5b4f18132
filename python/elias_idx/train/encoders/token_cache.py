"""The training texts as token ids in a mapped file, so that they are tokenised once. N texts, E tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from elias_idx.encoders.tokens import Tokens, id_dtype, padding_id, tokenize
from elias_idx.errors import FormatError
from elias_idx.train.encoders.cache import cached, fingerprint

_TEXTS_AT_ONCE = 8192


def cached_tokens(folder: Path, texts: Sequence[str], tokenizer: Any, max_tokens: int) -> Tokens:
    """The texts' tokens, mapped from the folder, where they are written unless they are there already.

    Args:
        folder: of the run.
        texts: N texts.
        tokenizer: a fast one of transformers.
        max_tokens: of a text.
    """
    mark = texts_fingerprint(texts, tokenizer, max_tokens)
    path = cached(folder, "tokens", mark, lambda partial: _write(partial, texts, tokenizer, max_tokens))
    offsets, dtype = np.load(path / "offsets.npy"), id_dtype(tokenizer)
    if (path / "ids").stat().st_size != offsets[-1] * np.dtype(dtype).itemsize:
        raise FormatError(f"{path} is damaged: remove it, and it is made again")
    # A file of nothing can't be mapped.
    ids = np.memmap(path / "ids", dtype, mode="r") if offsets[-1] else np.empty(0, dtype)
    return Tokens(ids, offsets, padding_id(tokenizer))


def texts_fingerprint(texts: Sequence[str], tokenizer: Any, max_tokens: int) -> str:
    """What the texts' tokens follow from."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left by the last call, and no part of what the tokenizer is.
    settings |= {"truncation": None, "padding": None}
    # Lone surrogates, which strings from JSON may hold, have no UTF-8.
    return fingerprint(json.dumps(settings), str(max_tokens), (text.encode(errors="surrogatepass") for text in texts))


def _write(folder: Path, texts: Sequence[str], tokenizer: Any, max_tokens: int) -> None:
    lengths = []
    with (
        (folder / "ids").open("wb") as file,
        tqdm(total=len(texts), desc="tokenising", unit="text", disable=None) as progress,
    ):
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = tokenize(tokenizer, texts[start : start + _TEXTS_AT_ONCE], max_tokens)
            tokens.ids.tofile(file)
            lengths.append(tokens.lengths)
            progress.update(len(tokens.lengths))
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64))
