"""What a part of the accuracy benchmark has to do its work with, and what it gives. Q test texts, L labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .processes import Stopwatch
from .texts import TextSet

IntArray = npt.NDArray[np.int64]

K = 100  # labels predicted for each text


@dataclass(frozen=True)
class Work:
    """What a part has to do its work with.

    Attributes:
        texts: the data set.
        folder: for what it may use again, such as trained models; the other parts' folders stand beside it.
        num_threads: CPU threads to use.
        pecos_python: the Python that has PECOS.
        stopwatch: takes the times of "features", "train" and "predict".
    """

    texts: TextSet
    folder: Path
    num_threads: int
    pecos_python: str
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(frozen=True)
class Outcome:
    """What a part gives.

    Attributes:
        predicted: label ids [Q, ≤ K], best first, padded with −1; None for a part that was left out.
        steps: the same of what leads there, for the ablation.
        facts: what else the results say of the part.
    """

    predicted: IntArray | None
    steps: Mapping[str, IntArray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, IntArray]:
        """The predictions by name, those of the part itself as "predicted"."""
        return ({} if self.predicted is None else {"predicted": self.predicted}) | dict(self.steps)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        title: what tables call it.
        run: does the work.
        package: what it needs besides elias_idx[train].
        is_peer: whether it is what elias_idx is compared with.
        max_labels: L at most; it would take too long on sets with more.
        needs_label_texts: whether it is for sets alone whose labels have texts.
        is_slow: whether it takes so long that it runs only if asked for.
    """

    title: str
    run: Callable[[Work], Outcome]
    package: str | None = None
    is_peer: bool = True
    max_labels: int = sys.maxsize
    needs_label_texts: bool = False
    is_slow: bool = False
