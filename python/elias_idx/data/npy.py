"""The headers of `.npy` files, which are not believed before they are held to the file's size."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from typing import IO, Any, NamedTuple

import numpy as np

from elias_idx.errors import DataError

# More than NumPy parses, and than it writes for an array of numbers.
_LONGEST_HEADER = 1 << 16
_MOST_COLUMNS = 2**31 - 1


class NpyHeader(NamedTuple):
    """What an array's file says of it.

    Attributes:
        shape: [N, D], D at least 1.
        dtype: floats of at most 8 bytes.
        by_columns: whether columns are stored one after the other, not rows.
        start: the byte that the numbers begin at.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    by_columns: bool
    start: int


def read_npy_header(file: IO[bytes], size: int) -> NpyHeader:
    """Reads the header of embeddings, floats [N, D], from the start of a file of `size` bytes.

    Raises:
        DataError: it is no such file, or ends before its last row; the message doesn't name it.
    """
    head = io.BytesIO(file.read(_LONGEST_HEADER))
    if head.getvalue().startswith(b"PK"):
        raise DataError("not a .npy array: several arrays are packed in it")
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            # That Python 2 wrote it.
            warnings.simplefilter("ignore")
            shape, by_columns, dtype = read(head)
    # What Python's own parsers raise passes through NumPy.
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise DataError(f"not a .npy array: {error}") from error
    if len(shape) != 2 or shape[0] < 0 or not 1 <= shape[1] <= _MOST_COLUMNS or dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"expected floats [N, D] of at most 8 bytes, got {dtype} of shape {list(shape)}")
    header = NpyHeader(shape, dtype, by_columns, head.tell())
    if math.prod(shape) * dtype.itemsize > size - header.start:
        raise DataError(f"the file ends before row {(size - header.start) // (shape[1] * dtype.itemsize)}")
    return header
