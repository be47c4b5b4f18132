"""What callers pass, brought into the dtypes and layouts that the core takes, or refused with a reason.

Shapes: Q queries, D dim, C clusters, L labels, nnz edges of the adjacency.
"""

import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
SparseArrays = tuple[IntArray, npt.NDArray[np.int32], FloatArray, int]
"""A sparse matrix by rows: indptr, indices, data, number of columns."""

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
        ValueError: the number of dimensions is another, the rows differ in length, or values are masked.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values: say what they are, as by np.ma.filled")
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


def as_count_if_given(name: str, value: Any) -> int | None:
    """`as_count`, but None stays None."""
    return None if value is None else as_count(name, value)


def as_id(name: str, value: Any, count: int) -> int:
    """One id, from 0 to `count` - 1.

    Raises:
        TypeError: not an integer.
        ValueError: out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if not 0 <= number < count:
        raise ValueError(f"{name} {number} is out of range: the index has {count} {name}s")
    return number


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


def as_labels(labels: Any) -> list[str] | npt.NDArray[Any]:
    """Labels as a list of names, or as an array [n] of ids (int64) or of a mask's booleans.

    Whether ids and masks fit an index is left to the core.

    Raises:
        TypeError: neither of these.
        ValueError: ids or a mask of more than one dimension.
    """
    is_array = hasattr(labels, "__array__")
    if isinstance(labels, (str, bytes)) or not (is_array or isinstance(labels, Iterable)):
        raise TypeError(f"labels must be an array or list of ids, of names or of booleans, got {_described(labels)}")
    # What is no array isn't made one before names are looked for: an id among them would become one.
    labels = labels if is_array else list(labels)
    if (names := _as_names(labels)) is not None:
        return names
    array = as_array("labels", labels, ndim=(1,))
    if array.dtype == bool:
        # Of booleans that are a view of other bytes than 0 and 1, NumPy itself makes little sense.
        return array.view(np.uint8) != 0
    return to_int64("labels", array)


def _as_names(labels: Any) -> list[str] | None:
    """The labels as a list of names, if there is a name among them."""
    if hasattr(labels, "__array__"):
        array = np.asarray(labels)
        labels = array.ravel().tolist() if array.dtype.kind in "OSTU" else []
    if any(isinstance(label, bytes) for label in labels):
        raise TypeError("labels must be ids, names or booleans, got byte strings: decode these")
    if not any(isinstance(label, str) for label in labels):
        return None
    for at, label in enumerate(labels):
        if not isinstance(label, str):
            raise TypeError(f"labels[{at}] must be a name, as others are, got {type(label).__name__}")
    return labels


def check_mask(mask: BoolArray, num_labels: int) -> None:
    """Refuses a mask of another number of labels with a ValueError."""
    if len(mask) != num_labels:
        raise ValueError(f"a boolean mask must have {num_labels} values, one a label, got {len(mask)}")


def as_name_list(argument: str, names: Sequence[str], num_labels: int) -> list[str]:
    """The names of so many labels as a list.

    Raises:
        TypeError: one that is no string, or a single string.
        ValueError: another number of names.
    """
    if isinstance(names, (str, bytes)):
        raise TypeError(f"{argument} must be a sequence of strings, got one {type(names).__name__}")
    listed = list(names)
    for label, name in enumerate(listed):
        if not isinstance(name, str):
            raise TypeError(f"{argument}[{label}] must be a str, got {type(name).__name__}")
    if len(listed) != num_labels:
        raise ValueError(f"{argument} must have {num_labels} names, one a label, got {len(listed)}")
    return listed


def as_csr(adjacency: Any, shape: tuple[int, int]) -> Csr:
    """A SciPy-like CSR matrix [C, L], or a triple (indptr, indices, data), as arrays for the core.

    Only what the core can't see is checked here: formats, dtypes and the shape.

    Raises:
        TypeError: neither of the two, or arrays of other dtypes.
        ValueError: another sparse format or shape.
    """
    indptr, indices, data = _csr_parts("adjacency", adjacency, shape, "[num_clusters, num_labels]")
    csr = Csr(
        to_int64("adjacency.indptr", as_array("adjacency.indptr", indptr, ndim=(1,))),
        Blocks("adjacency.indices", indices, 1),
        Blocks("adjacency.data", data, 1),
    )
    if len(csr.indices) != len(csr.data):
        raise ValueError(
            f"adjacency: indices and data must have the same length, got {len(csr.indices)} and {len(csr.data)}"
        )
    return csr


def as_sparse(name: str, matrix: Any, shape: tuple[int, int]) -> SparseArrays:
    """A CSR matrix, as for `as_csr`, of real numbers: indptr, indices, data and the number of columns.

    Raises:
        TypeError: arrays of other dtypes.
        ValueError: another sparse format or shape.
    """
    indptr, indices, data = _csr_parts(name, matrix, shape, "[rows, columns]")
    return (
        to_int64(f"{name}.indptr", as_array(f"{name}.indptr", indptr, ndim=(1,))),
        to_int32(f"{name}.indices", as_array(f"{name}.indices", indices, ndim=(1,))),
        to_float32(f"{name}.data", as_array(f"{name}.data", data, ndim=(1,))),
        shape[1],
    )


def num_rows(name: str, matrix: Any) -> int:
    """The rows of what is meant as a CSR matrix.

    Raises:
        TypeError: it isn't one.
    """
    if not is_csr(matrix):
        raise TypeError(f"{name} must be a CSR matrix, such as SciPy's, got {type(matrix).__name__}")
    return len(matrix[0]) - 1 if isinstance(matrix, tuple) else int(matrix.shape[0])


def as_filter_rows(rows: Any, shape: tuple[int, int]) -> tuple[IntArray, IntArray, npt.NDArray[np.uint8]]:
    """The allowed labels of each query, a CSR matrix [Q, L] as for `as_csr`: indptr, indices, what isn't 0 (in bytes).

    Raises:
        TypeError: arrays of other dtypes.
        ValueError: another sparse format or shape.
    """
    indptr, indices, data = _csr_parts("filter", rows, shape, "[num_queries, num_labels]")
    return (
        to_int64("filter.indptr", as_array("filter.indptr", indptr, ndim=(1,))),
        to_int64("filter.indices", as_array("filter.indices", indices, ndim=(1,))),
        (as_array("filter.data", data, ndim=(1,)) != 0).view(np.uint8),
    )


def is_csr(values: Any) -> bool:
    """Whether the values are meant as a sparse matrix, or as the triple of arrays that one consists of."""
    if isinstance(values, tuple):
        return len(values) == 3 and all(np.ndim(part) == 1 for part in values)
    return hasattr(values, "indptr") or hasattr(values, "tocsr")


def as_out(out: Any, shape: tuple[int, ...], queries: FloatArray) -> tuple[IntArray, FloatArray]:
    """The caller's arrays for labels and scores, fit to be written to.

    Raises:
        TypeError: no pair of arrays, or other dtypes.
        ValueError: another shape or layout, read-only memory, memory that the other one or the queries use.
    """
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise TypeError(f"out must be two arrays, (labels, scores), got {_described(out)}")
    for at, (array, dtype) in enumerate(zip(out, (np.int64, np.float32), strict=True)):
        name = f"out[{at}]"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {np.dtype(dtype)}, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, got {list(array.shape)}")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(f"{name} must be C-contiguous and aligned: np.ascontiguousarray copies it so")
        if not array.flags.writeable:
            raise ValueError(f"{name} must be writable")
        if np.may_share_memory(array, queries):
            raise ValueError(f"{name} must not overlap the embeddings")
    if np.may_share_memory(*out):
        raise ValueError("out[0] must not overlap out[1]")
    return out[0], out[1]


def as_float(name: str, value: Any) -> float:
    """A number as a float.

    Raises:
        TypeError: not a number.
    """
    try:
        if not isinstance(value, (str, bytes, bytearray)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def _csr_parts(name: str, matrix: Any, shape: tuple[int, int], axes: str) -> tuple[Any, Any, Any]:
    """The three arrays of a CSR matrix, or of a triple of them, as they are."""
    kind = getattr(matrix, "format", "csr")
    if isinstance(kind, str) and kind != "csr":
        raise ValueError(f"{name} is in {kind} format: pass {name}.tocsr()")
    if all(hasattr(matrix, part) for part in Csr._fields):
        parts = matrix.indptr, matrix.indices, matrix.data
        given = tuple(getattr(matrix, "shape", shape))
        if given != shape:
            raise ValueError(f"{name} must be {axes} = {list(shape)}, got {list(given)}")
    elif isinstance(matrix, (tuple, list)) and len(matrix) == 3:
        parts = tuple(matrix)
    else:
        raise TypeError(
            f"{name} must be a CSR matrix, such as SciPy's, or a triple (indptr, indices, data), "
            f"got {type(matrix).__name__}"
        )
    return parts[0], parts[1], parts[2]


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


def to_int32(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The array as C-contiguous, aligned int32 in native byte order; no copy if it is that."""
    if array.dtype != np.int32:
        wide = to_int64(name, array)
        if wide.size > 0 and not (wide.min() >= -(2**31) and wide.max() < 2**31):
            raise ValueError(f"{name} holds ids beyond 32 bits")
        array = wide.astype(np.int32)
    return np.require(array, np.int32, ["C_CONTIGUOUS", "ALIGNED"])


def _described(value: Any) -> str:
    """What was passed, in two or three words."""
    if isinstance(value, (str, bytes)):
        return f"one {type(value).__name__}"
    return f"{len(value)} values" if isinstance(value, (tuple, list)) else type(value).__name__
