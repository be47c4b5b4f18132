"""What callers pass, brought into the dtypes and layouts that the core takes, or refused with a reason.

Shapes: Q queries, D dim, C clusters, L labels, nnz edges of the adjacency.
"""

import operator
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MAX_IDS = 2**32 - 2
"""The most labels or clusters: ids are 32-bit, and two are kept free."""


BLOCK_BYTES = 1 << 26
"""How much of an array is converted at once while an index is built, about."""


class Csr(NamedTuple):
    """A sparse matrix by rows: row `c` has the columns `indices[indptr[c]:indptr[c + 1]]`."""

    indptr: IntArray
    indices: "Blocks"
    data: "Blocks"


class Blocks:
    """An array that is read and converted piece by piece, so that all of it is never in memory.

    Args:
        name: What errors call it.
        values: Anything with `shape`, `dtype` and slices of rows, such as a memory-mapped array, or what
            NumPy makes an array of.
        ndim: The number of dimensions that it must have.

    Raises:
        TypeError: what the values are can't become floats.
        ValueError: the number of dimensions is another, or the rows differ in length.
    """

    def __init__(self, name: str, values: Any, ndim: int) -> None:
        self.name = name
        lazy = all(hasattr(values, part) for part in ("shape", "dtype", "__getitem__"))
        self._values = values if lazy else as_array(name, values, ndim=(ndim,))
        self.shape = tuple(map(int, self._values.shape))
        if len(self.shape) != ndim:
            raise ValueError(f"{name} must have {ndim} dimensions, got {len(self.shape)}")
        self[:0]  # its dtype, refused before any work is done

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Some rows, in the dtype that they have."""
        block = as_array(self.name, self._values[rows], ndim=(len(self.shape),))
        start, stop, _ = rows.indices(len(self))
        if block.shape != (stop - start, *self.shape[1:]):
            raise ValueError(f"{self.name}[{start}:{stop}] has shape {list(block.shape)}")
        return block


def as_array(name: str, values: npt.ArrayLike, *, ndim: tuple[int, ...]) -> npt.NDArray[Any]:
    """`values` as an array of numbers with one of these numbers of dimensions; no copy if it is one.

    Raises:
        TypeError: what the values are can't become floats.
        ValueError: the number of dimensions is another, or the rows differ in length.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged lists
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    except (TypeError, RuntimeError) as error:  # e.g. a tensor on a GPU or one that needs gradients
        raise TypeError(f"{name} can't become a NumPy array: {error}") from None
    if array.dtype.kind not in "biufOV" or array.dtype.names is not None:
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    if array.ndim not in ndim:
        wanted = " or ".join(map(str, ndim))
        raise ValueError(f"{name} must have {wanted} dimensions, got {array.ndim}")
    return array


def to_float32(name: str, array: npt.NDArray[Any]) -> FloatArray:
    """The array as C-contiguous, aligned float32 in native byte order; no copy if it is that.

    Values beyond float32 become infinite, which the core refuses.
    """
    try:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}: {error}") from None


def as_count(name: str, value: Any, *, limit: int = sys.maxsize) -> int:
    """An integer of at least 1; one above `limit` becomes `limit`.

    Raises:
        TypeError: not an integer.
        ValueError: below 1.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return min(count, limit)


def as_embeddings(embeddings: npt.ArrayLike, dim: int) -> tuple[FloatArray, bool]:
    """Queries [Q, D] as float32, and whether a single one [D] was given."""
    array = as_array("embeddings", embeddings, ndim=(2, 1))
    if array.shape[-1] != dim:
        raise ValueError(f"embeddings must have dim {dim}, as the index has, got {array.shape[-1]}")
    queries = to_float32("embeddings", array)
    return queries.reshape(-1, dim), array.ndim == 1


def as_label_ids(labels: npt.ArrayLike, num_labels: int, *, lowest: int = -1) -> IntArray:
    """Label ids of any shape, from `lowest` on, as int64.

    Raises:
        TypeError: not integers.
        ValueError: an id that no label has.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"labels must be an array of integers: {error}") from None
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"labels must be integers, got dtype {array.dtype}")
    outside = (array < lowest) | (array >= num_labels)
    if outside.any():
        raise ValueError(f"label {array[outside].flat[0]} is out of range: the index has {num_labels} labels")
    return array.astype(np.int64)


def as_csr(adjacency: Any, shape: tuple[int, int]) -> Csr:
    """A SciPy-like CSR matrix [C, L], or a triple (indptr, indices, data), as arrays for the core.

    Only what the core can't see is checked here: formats, dtypes and the shape.

    Raises:
        TypeError: neither of the two, or arrays of other dtypes.
        ValueError: another sparse format or shape.
    """
    kind = getattr(adjacency, "format", "csr")
    if isinstance(kind, str) and kind != "csr":
        raise ValueError(f"adjacency is in {kind} format: pass adjacency.tocsr()")
    if all(hasattr(adjacency, part) for part in Csr._fields):
        parts = adjacency.indptr, adjacency.indices, adjacency.data
        given = tuple(getattr(adjacency, "shape", shape))
        if given != shape:
            raise ValueError(f"adjacency must be [num_clusters, num_labels] = {list(shape)}, got {list(given)}")
    elif isinstance(adjacency, (tuple, list)) and len(adjacency) == 3:
        parts = tuple(adjacency)
    else:
        raise TypeError(
            "adjacency must be a CSR matrix, such as SciPy's, or a triple (indptr, indices, data), "
            f"got {type(adjacency).__name__}"
        )
    csr = Csr(
        to_int64("adjacency.indptr", as_array("adjacency.indptr", parts[0], ndim=(1,))),
        Blocks("adjacency.indices", parts[1], 1),
        Blocks("adjacency.data", parts[2], 1),
    )
    if len(csr.indices) != len(csr.data):
        raise ValueError(
            f"adjacency: indices and data must have the same length, got {len(csr.indices)} and {len(csr.data)}"
        )
    return csr


def row_blocks(indptr: IntArray) -> Iterator[slice]:
    """The edges of a CSR matrix, `indptr` [C+1], in runs of whole rows."""
    start, last = 0, int(indptr[-1])
    while start < last:
        limit = max(start + BLOCK_BYTES // 16, int(indptr[np.searchsorted(indptr, start, side="right")]))
        stop = int(indptr[np.searchsorted(indptr, limit, side="right") - 1])
        yield slice(start, stop)
        start = stop


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix of float32 in runs of whole rows."""
    rows = max(1, BLOCK_BYTES // (4 * shape[1]))
    return (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def to_int64(name: str, array: npt.NDArray[Any]) -> IntArray:
    """The array as C-contiguous, aligned int64 in native byte order; no copy if it is that."""
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.size > 0 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}, which is out of range")
    return np.require(array, np.int64, ["C_CONTIGUOUS", "ALIGNED"])
