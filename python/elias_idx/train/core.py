"""What calls of the core's training functions have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm


def core_csr(
    matrix: sp.csr_matrix,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32], int]:
    """Its arrays as the core takes them; nothing is copied that has the dtype already."""
    return (
        matrix.indptr.astype(np.int64, copy=False),
        matrix.indices.astype(np.int32, copy=False),
        matrix.data.astype(np.float32, copy=False),
        matrix.shape[1],
    )


@contextmanager
def share_bar(description: str) -> Iterator[Callable[[float], None]]:
    """A progress bar that is told the share of the work that is done, from 0 to 1."""
    with tqdm(total=1.0, desc=description, bar_format="{l_bar}{bar}| {elapsed}<{remaining}", disable=None) as bar:

        def report(share: float) -> None:
            bar.update(share - bar.n)

        yield report
        report(1.0)
