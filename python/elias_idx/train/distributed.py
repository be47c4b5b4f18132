"""Training by several processes on CPUs, as `torchrun` starts them: each takes its share of every batch.

All hold the whole model and make the same steps: gradients are added up over the processes before each. The first
process alone evaluates, reports and writes files; the others read what it wrote. In a process of its own nothing
here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from elias_idx.errors import ConfigError
from elias_idx.train.batch import Batch
from elias_idx.train.row_table import RowGradient, RowTable, added_up

_Result = TypeVar("_Result")

# While the first one makes clusters or evaluates, the others wait. One that has died is noticed at once.
_LONGEST_WAIT = timedelta(days=2)


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Joins the other processes, if `torchrun` or the like has set the environment for several.

    Raises:
        ConfigError: several are to train on something else than CPUs.
    """
    if not _started_with_others() or dist.is_initialized():
        yield
        return
    if device != "cpu":
        raise ConfigError(f"several processes train on CPUs only: start one for device {device!r}")
    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that evaluates, reports and writes."""
    if dist.is_initialized():
        return dist.get_rank() == 0
    return not _started_with_others() or os.environ.get("RANK") == "0"


def _started_with_others() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def processes_here() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", num_processes())) if dist.is_initialized() else 1


def fair_num_threads(alone: int) -> int:
    """This process' share of the CPUs that it may use; `alone` if it trains alone."""
    if num_processes() == 1:
        return alone
    return max(1, usable_cpus() // processes_here())


def usable_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def from_first(function: Callable[[], _Result]) -> _Result:
    """What the function gives in the first process, in all of them; an error too."""
    if num_processes() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs the block before the others do, which find what it left in files."""
    if not is_first():
        dist.barrier()
    yield
    if num_processes() > 1 and is_first():
        dist.barrier()


def share_weights(*modules: nn.Module) -> None:
    """Gives the modules the first process' parameters."""
    if num_processes() > 1:
        for module in modules:
            for parameter in module.parameters():
                dist.broadcast(parameter.detach(), 0)


def own_part(batch: Batch) -> Batch:
    """This process' share of a batch, which may be empty."""
    if num_processes() == 1:
        return batch
    return batch.part(dist.get_rank(), dist.get_world_size())


def total(value: float) -> float:
    """The sum of the processes' values."""
    if num_processes() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(summed)
    return float(summed)


def add_up_gradients(parameters: Iterable[Tensor], tables: Iterable[RowTable]) -> None:
    """Gives all processes the sums of their gradients, those of dense parameters and those that tables collected."""
    if num_processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
    for table in tables:
        table.gradients = _gathered(table)


def _gathered(table: RowTable) -> list[RowGradient]:
    """All processes' gradients of the table, in the order of their ranks."""
    own = added_up(table.gradients) if table.gradients else _no_rows(table)
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(num_processes())]
    dist.all_gather(counts, torch.tensor([len(own.rows)]))
    sizes = [int(count) for count in counts]
    rows, weight = _all_gather(own.rows, sizes), _all_gather(own.weight, sizes)
    bias = [None] * len(sizes) if own.bias is None else _all_gather(own.bias, sizes)
    gradients = [RowGradient(*parts) for parts in zip(rows, weight, bias, strict=True)]
    return [gradient for gradient in gradients if len(gradient.rows)]


def _all_gather(tensor: Tensor, sizes: list[int]) -> list[Tensor]:
    """The processes' tensors, whose first dimensions are of the given sizes."""
    # What is gathered must be of one size.
    padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return [one[:size] for one, size in zip(found, sizes, strict=True)]


def _no_rows(table: RowTable) -> RowGradient:
    weight = torch.zeros(0, table.weight.shape[1])
    return RowGradient(torch.zeros(0, dtype=torch.int64), weight, None if table.bias is None else torch.zeros(0))
