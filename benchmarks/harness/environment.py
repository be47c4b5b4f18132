"""What figures depend on: the machine and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from elias_idx import instruction_set

_CPU = Path("/sys/devices/system/cpu/cpu0/cache")


def machine() -> dict[str, Any]:
    """The CPU, its caches and memory, as far as Linux tells."""
    cpu = dict(_pairs(Path("/proc/cpuinfo").read_text()))
    memory = dict(_pairs(Path("/proc/meminfo").read_text()))
    caches = [
        f"L{_line(cache / 'level')} {_line(cache / 'type').lower()} {_line(cache / 'size')}"
        for cache in sorted(_CPU.glob("index*"))
    ]
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "instruction_set": instruction_set(),
        "caches": caches,
        "memory": memory["MemTotal"],
        "huge_pages": _line(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Those of Python and the packages, and the commit of this library."""
    root = Path(__file__).parent
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    return {
        "commit": commit.stdout.strip() + ("+changes" if changes.stdout.strip() else ""),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """The first value of each key of a `key: value` listing."""
    seen = set()
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() not in seen:
            seen.add(key.strip())
            yield key.strip(), value.strip()


def _line(path: Path) -> str:
    return path.read_text().strip() if path.exists() else "unknown"
