"""Work in processes of its own, and what it takes: wall time, CPU time, memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def in_process(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Runs the work in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def process_memory(name: str) -> int:
    """Bytes of this process's memory, by the kernel's name for it: VmRSS, or VmHWM for the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def peak_memory() -> int:
    """The most bytes that this process or a child of it that ended had in memory."""
    return max(process_memory("VmHWM"), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


class Stopwatch:
    """Seconds of named parts of the work.

    Attributes:
        seconds: name → {"wall": …, "cpu": …}, the latter of all threads and of child processes that ended.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Times what runs within; a name used again adds up."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        yield
        self.add(name, time.perf_counter() - wall, _cpu_seconds() - cpu)

    def add(self, name: str, wall: float, cpu: float) -> None:
        """Adds seconds that were measured elsewhere."""
        before = self.seconds.get(name, {"wall": 0.0, "cpu": 0.0})
        self.seconds[name] = {"wall": before["wall"] + wall, "cpu": before["cpu"] + cpu}


def _cpu_seconds() -> float:
    return sum(os.times()[:4])
