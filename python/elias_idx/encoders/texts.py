"""The check that inputs are texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from elias_idx.errors import DataError


def as_texts(inputs: Sequence[str] | npt.NDArray[Any]) -> Sequence[str]:
    """The inputs, which must be texts.

    Raises:
        DataError: they are an array, or not all strings.
    """
    if isinstance(inputs, np.ndarray):
        raise DataError(f"this model takes texts, got an array of {inputs.dtype} of shape {list(inputs.shape)}")
    for number, text in enumerate(inputs):
        if not isinstance(text, str):
            raise DataError(f"text {number} must be a string, got {type(text).__name__}")
    return inputs
