"""The texts of a training step, and what is random in it. N texts, Q in a step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A step's texts, or a part of them.

    Random numbers are drawn for the whole step and cut to the part's texts: however a step is split, over parts whose
    gradients are added up or over processes, all texts get the same ones.

    Attributes:
        step_rows: the numbers of all texts of the step, int64 [Q].
        seed: of everything random in the step.
        start: where the part begins.
        stop: where it ends.
    """

    step_rows: Tensor
    seed: int
    start: int
    stop: int

    @classmethod
    def whole(cls, step_rows: Tensor, seed: int) -> Batch:
        """All texts of a step."""
        return cls(step_rows, seed, 0, len(step_rows))

    @property
    def rows(self) -> Tensor:
        """The numbers of the part's texts, int64."""
        return self.step_rows[self.start : self.stop]

    def split(self, size: int) -> Iterator[Batch]:
        """Parts of `size` texts, the last one smaller perhaps."""
        for start in range(self.start, self.stop, size):
            yield Batch(self.step_rows, self.seed, start, min(start + size, self.stop))

    def part(self, index: int, count: int) -> Batch:
        """One of `count` parts of nearly equal size, some of which are empty where there are too few texts."""
        size = self.stop - self.start
        start, stop = (self.start + size * number // count for number in (index, index + 1))
        return Batch(self.step_rows, self.seed, start, stop)

    def uniform(self, width: int, purpose: str) -> Tensor:
        """Random numbers in [0, 1), `width` for each of the part's texts; others for each purpose."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, purpose))
        numbers = torch.rand(len(self.step_rows), width, generator=generator)
        return numbers[self.start : self.stop].to(self.step_rows.device)


def derived_seed(*parts: int | str) -> int:
    """A seed that follows from the parts; different ones where any part differs."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "little")
