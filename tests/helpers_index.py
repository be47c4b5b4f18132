"""Building indexes for tests."""

import subprocess
import sys
from typing import Any

from elias_idx import Index
from oracle import Parts


def build(parts: Parts, **changes: Any) -> Index:
    """An index of these parts, some of them changed."""
    return Index.build(**{**parts.build_args(), **changes})


def tolerance_of(index: Index) -> float:
    """By how much, relatively, scores may differ from the oracle's.

    A screened index sums the softmax's denominator from codes, which all scores of a query share.
    """
    return 2e-3 if index.screen else 1e-6


def names_for(parts: Parts) -> list[str]:
    """Unique names, some of them awkward."""
    names = [f"label {label}" for label in range(len(parts.label_bias))]
    names[:3] = ["", "Fièvre 🌡 typhoïde", "a\0b\n"][: len(names)]
    return names


SMALL_INDEX = """
import numpy as np
from elias_idx import Index
rng = np.random.default_rng(0)
C, L, D, K = 500, 2000, 32, 50
indices = np.concatenate([rng.choice(L, K, replace=False) for _ in range(C)])
adjacency = np.arange(C + 1) * K, indices, rng.uniform(0.1, 1, C * K)
index = Index.build(rng.standard_normal((C, D)), np.zeros(C), adjacency, rng.standard_normal((L, D)), np.zeros(L))
queries = rng.standard_normal((2000, D), dtype=np.float32)
"""


def run_with_small_index(code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh process, where there are an `index` and 2,000 `queries`."""
    args = [sys.executable, "-c", SMALL_INDEX + code]
    return subprocess.run(args, capture_output=True, text=True, timeout=120, check=False)
