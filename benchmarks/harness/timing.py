"""Times contestants in turns, so that whatever else the machine does falls on all of them.

Shapes: Q queries, D dim.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .contestants import Contestant, Searcher, Work, search_all
from .data import Dataset, FloatArray, IntArray

ONE, BATCH = "one", "batch"
MODES = (ONE, BATCH)

_SINGLE_QUERIES = 256
_LEAST_BATCH = 512
"""Queries of a timed batch run, for those whose batches are smaller."""


@dataclass
class Measured:
    """What was seen of one contestant.

    Attributes:
        name: the contestant.
        work: how hard it tried.
        labels: its answers to all queries [Q, k].
        nbytes: bytes of its index.
        label_evaluations: a query, about.
        microseconds: a query, by number of threads and mode, one value a round.
    """

    name: str
    work: Work
    labels: IntArray
    nbytes: int
    label_evaluations: float
    microseconds: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    def median(self, num_threads: int, mode: str) -> float:
        """Microseconds a query."""
        return float(np.median(self.microseconds[num_threads][mode]))


def time_in_turns(
    entries: Sequence[tuple[Contestant, Work]],
    dataset: Dataset,
    queries: FloatArray,
    threads: Sequence[int],
    rounds: int,
    report: Callable[[str], None],
) -> list[Measured]:
    """Opens, times and closes each entry once a round; answers all queries [Q, D] in the first."""
    measured: list[Measured] = []
    for turn in range(rounds):
        for number, (contestant, work) in enumerate(entries):
            searcher = contestant.open(dataset, work)
            if turn == 0:
                searcher.set_threads(max(threads))
                labels = search_all(searcher, queries)
                measured.append(Measured(contestant.name, work, labels, searcher.nbytes, searcher.label_evaluations))
            for num_threads in threads:
                searcher.set_threads(num_threads)
                seen = measured[number].microseconds.setdefault(num_threads, {mode: [] for mode in MODES})
                seen[BATCH].append(_time_batch(searcher, queries))
                seen[ONE].append(_time_singles(searcher, queries))
            report(f"{dataset.name}, round {turn + 1} of {rounds}: {contestant.name} {_latest(measured[number])}")
    return measured


def _time_batch(searcher: Searcher, queries: FloatArray) -> float:
    batch = queries[: max(_LEAST_BATCH, searcher.batch_size)]
    return _microseconds(lambda: search_all(searcher, batch), len(batch))


def _time_singles(searcher: Searcher, queries: FloatArray) -> float:
    singles = [queries[number : number + 1] for number in range(min(_SINGLE_QUERIES, len(queries)))]

    def search_each() -> None:
        for query in singles:
            searcher.search(query)

    return _microseconds(search_each, len(singles))


def _microseconds(run: Callable[[], object], count: int) -> float:
    """The time of one run by the queries in it, after another that warms caches, buffers and threads up."""
    run()
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / count * 1e6


def _latest(measured: Measured) -> str:
    return ", ".join(
        f"{num_threads} thr. {modes[ONE][-1]:.0f} / {modes[BATCH][-1]:.0f} µs"
        for num_threads, modes in measured.microseconds.items()
    )
