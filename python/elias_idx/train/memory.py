"""How much memory a training run takes, by part, before it starts.

Parts are counted from the shapes of the arrays that the code makes (`memory_parts`); only what Python's own objects
take is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from elias_idx.config import Config
from elias_idx.errors import ConfigError
from elias_idx.train import distributed
from elias_idx.train.auto import resolved_for_sizes
from elias_idx.train.memory_full import full_parts
from elias_idx.train.memory_parts import (
    PHASES,
    SPANS,
    Part,
    clustering_parts,
    data_parts,
    encoder_parts,
    network_parts,
    passing_parts,
    step_parts,
)
from elias_idx.train.model_sizes import ModelSizes

# Where Linux says what memory there is, and what this process' group may take.
_MEMINFO, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryAccount:
    """The memory of a run by part.

    Attributes:
        parts: all of them.
        device: "cpu", or a device with memory of its own.
    """

    parts: Sequence[Part]
    device: str

    def held(self, phase: str, *, on_device: bool) -> int:
        """Bytes that a phase takes, in the machine's memory or in the device's own."""
        separate = self.device != "cpu"
        return sum(
            part.num_bytes
            for part in self.parts
            if phase in SPANS[part.span] and (part.on_device and separate) == on_device
        )

    def peak(self, *, on_device: bool = False) -> int:
        """Bytes of the phase that takes most."""
        return max(self.held(phase, on_device=on_device) for phase in PHASES)

    def present(self) -> int:
        """Bytes that are there before training starts."""
        return sum(part.num_bytes for part in self.parts if part.present)

    def lines(self) -> list[str]:
        """A table: the parts, what each phase takes, and the most that is taken at a time."""
        separate = self.device != "cpu"
        rows = [
            (part.name, part.span + (f", {self.device}" if separate and part.on_device else ""), part.num_bytes)
            for part in self.parts
            if part.num_bytes
        ]
        # A phase without a part of its own doesn't occur.
        phases = [phase for phase in PHASES if any(part.span == phase for part in self.parts)]
        rows += [(f"in all during {phase}", "", self.held(phase, on_device=False)) for phase in phases]
        rows.append(("at most", "", self.peak()))
        if separate:
            rows.append((f"at most on {self.device}", "", self.peak(on_device=True)))
        return [_line(name, phase, shown_bytes(num_bytes)) for name, phase, num_bytes in rows]


def memory_account(config: Config, sizes: ModelSizes) -> MemoryAccount:
    """The memory that training takes.

    Args:
        config: the settings; those that follow from the data need not be filled in.
        sizes: of data and encoder.
    """
    config = resolved_for_sizes(config, sizes.num_texts, sizes.num_labels)
    kinds = (data_parts, encoder_parts, network_parts, step_parts, clustering_parts, passing_parts, full_parts)
    parts = [part for parts_of in kinds for part in parts_of(config, sizes)]
    device = "cpu" if config.device == "cpu" else torch.device(config.device).type
    return MemoryAccount(parts, device)


def check_memory(account: MemoryAccount) -> None:
    """Raises a ConfigError if a run takes more memory than there is; the text says which settings lower it."""
    available = available_memory()
    if available is not None:
        needed = (account.peak() - account.present()) * distributed.processes_here()
        _check(account, needed, available, on_device=False)
    if account.device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        _check(account, account.peak(on_device=True), free, on_device=True)


def _check(account: MemoryAccount, needed: int, available: int, *, on_device: bool) -> None:
    if needed <= available:
        return
    where = f"of {account.device} memory" if on_device else "of memory"
    phase = max(PHASES, key=lambda phase: account.held(phase, on_device=on_device))
    separate = account.device != "cpu"
    parts = [part for part in account.parts if phase in SPANS[part.span]]
    parts = [part for part in parts if (part.on_device and separate) == on_device]
    largest = sorted(parts, key=lambda part: -part.num_bytes)[:3]
    named = ", ".join(f"{part.name} ({shown_bytes(part.num_bytes)})" for part in largest)
    settings = ", ".join(dict.fromkeys(name for part in largest for name in part.settings))
    raise ConfigError(
        f"training needs about {shown_bytes(needed)} {where}, but {shown_bytes(available)} are available. "
        f"Most is taken by: {named}."
        + (f" What lowers it: {settings}." if settings else "")
        + " To try anyway: --ignore-memory, or check_memory=False."
    )


def available_memory() -> int | None:
    """Bytes of memory that this process may still take; None where the system doesn't say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def available_line() -> str:
    """What is available, as a line below an account's."""
    available = available_memory()
    return _line("available", "", "unknown" if available is None else shown_bytes(available))


def _line(name: str, span: str, amount: str) -> str:
    return f"{name:<44}{span:<20}{amount:>12}"


def shown_bytes(num_bytes: int) -> str:
    """A number of bytes for people."""
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:,.0f} MiB"
    return f"{num_bytes / 2**30:,.1f} GiB"
