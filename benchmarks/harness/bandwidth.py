"""How long this machine takes to read what a query needs: no search can be faster.

Shapes: C clusters, D dim, L labels, D' label dim, S shortlist.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from elias_idx import Index

_REPEATS = 20
_SHORTLISTS = 64
"""Read at a time, that threads share; as many as put all of a large index's rows out of the caches' reach."""


def floor(index: Index, shortlist_size: int, num_threads: int) -> dict[str, float]:
    """Microseconds to read the 8-bit codes [C, D] in order, and S rows of codes [L, D'] at random."""
    torch.set_num_threads(num_threads)
    with torch.inference_mode():
        # Four codes in a float.
        clusters = _in_huge_pages(1, -(-index.num_clusters * index.dim // 4))
        rows = _in_huge_pages(index.num_labels, -(-index.label_dim // 4))
        size = min(shortlist_size, index.num_labels)
        generator = torch.Generator().manual_seed(0)
        shortlists = torch.randint(index.num_labels, (_REPEATS, _SHORTLISTS, size), generator=generator)
        return {
            "clusters": _fastest(lambda _: clusters.sum()),
            "labels": _fastest(lambda turn: F.embedding_bag(shortlists[turn], rows, mode="sum")) / _SHORTLISTS,
        }


def _in_huge_pages(*shape: int) -> torch.Tensor:
    """Zeros, where the system gives it in huge pages, as an index that is loaded into memory is."""
    memory = mmap.mmap(-1, 4 * math.prod(shape))
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape).zero_()


def _fastest(read: Callable[[int], object]) -> float:
    """Microseconds of the fastest of several turns."""
    times = []
    for turn in range(_REPEATS):
        start = time.perf_counter()
        read(turn)
        times.append(time.perf_counter() - start)
    return min(times) * 1e6
