"""What a file of a data set holds. N rows, L labels, F features."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data.groups import Group
from elias_idx.errors import DataError

# Texts, embeddings [N, D], or sparse features [N, F].
Inputs: TypeAlias = "Sequence[str] | npt.NDArray[np.floating] | sp.csr_matrix"


class Contents(NamedTuple):
    """What was asked for of a file.

    Attributes:
        inputs: N texts, or features [N, F]; None if only labels were asked for.
        labels: relevances in (0, 1], float32 CSR [N, L]; None if only inputs were asked for.
        label_names: the L labels' names; empty without labels.
        groups: what the rows' groups are called by; empty without groups.
    """

    inputs: Inputs | None
    labels: sp.csr_matrix | None
    label_names: Sequence[str]
    groups: Sequence[Group] = ()

    @classmethod
    def of(
        cls,
        fields: Container[str],
        inputs: Inputs,
        labels: sp.csr_matrix,
        names: Sequence[str],
        groups: Sequence[Group] = (),
    ) -> Contents:
        """Those of the parts that `fields` names: "text" and "labels"."""
        if "labels" not in fields:
            return cls(inputs, None, [])
        return cls(inputs if "text" in fields else None, labels, names, groups)


def as_texts(inputs: Inputs) -> Sequence[str]:
    """The inputs, which must be texts.

    Raises:
        DataError: they are no texts, or not all strings.
    """
    if is_sparse(inputs) or isinstance(inputs, np.ndarray):
        raise DataError(f"this model takes texts, got an array of {inputs.dtype} of shape {list(inputs.shape)}")
    for number, text in enumerate(inputs):
        if not isinstance(text, str):
            raise DataError(f"text {number} must be a string, got {type(text).__name__}")
    return inputs


def num_rows(inputs: Inputs) -> int:
    """N."""
    return inputs.shape[0] if is_sparse(inputs) else len(inputs)


def is_sparse(inputs: object) -> TypeGuard[Any]:
    """Whether the inputs are a sparse matrix, of whichever format."""
    return bool(sp.issparse(inputs))


def same_inputs(inputs: Inputs) -> npt.NDArray[np.int64]:
    """A number for each input, [N], the same one for those that are the same; from 0, in the order of first uses."""
    numbers: dict[str | bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in _keys(inputs)], np.int64)


def _keys(inputs: Inputs) -> Iterable[str | bytes]:
    """What tells inputs apart: texts themselves, and digests of arrays."""
    if is_sparse(inputs):
        bounds = zip(inputs.indptr[:-1], inputs.indptr[1:], strict=True)
        return (_digest(inputs.indices[start:end], inputs.data[start:end]) for start, end in bounds)
    return map(_digest, inputs) if isinstance(inputs, np.ndarray) else inputs


def _digest(*arrays: npt.NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
