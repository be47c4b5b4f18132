"""What a training says of itself while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from elias_idx.train import distributed

SHOWN = ("P@1", "P@3", "P@5", "R@10", "R@100")


@dataclass
class Steps:
    """The steps of a training, numbered as they come.

    Attributes:
        on_line: called with each line, in the first process; None says nothing.
    """

    on_line: Callable[[str], None] | None
    _number: int = 0

    def say(self, line: str) -> None:
        """Says a line."""
        if self.on_line is not None and distributed.is_first():
            self.on_line(line)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Says what is done within the block, and how long it took."""
        self._number += 1
        self.say(f"step {self._number}: {title}")
        start = time.perf_counter()
        yield
        self.say(f"step {self._number} took {shown_seconds(time.perf_counter() - start)}")

    def finished(self, title: str) -> None:
        """Says what was done before an interruption, so that the steps' numbers stay."""
        self._number += 1
        self.say(f"step {self._number}: {title}: finished before")


def shown_seconds(seconds: float) -> str:
    """A duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shown_metrics(metrics: Mapping[str, float]) -> str:
    """The usual metrics as a piece of a line."""
    return ", ".join(f"{name} {metrics[name]:.2f}" for name in SHOWN if name in metrics)
