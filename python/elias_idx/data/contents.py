"""What a file of a data set holds. N rows, L labels, F features."""

from __future__ import annotations

from collections.abc import Container, Sequence
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
