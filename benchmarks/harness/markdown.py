"""What reports have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(results: Mapping[str, Any]) -> str:
    """Machine and versions in words, from `machine`, `versions` and `load_average_at_end` of the results."""
    host = results["machine"]
    return (
        f"{host['cpu']}, {host['cpus']} CPUs, elias_idx at level {host['instruction_set']}, "
        f"{', '.join(host['caches'])}, memory {host['memory']}, huge pages {host['huge_pages']}, "
        f"load average {host['load_average']:.1f} at the start and {results['load_average_at_end']:.1f} at the end, "
        f"{host['system']}.\n\n"
        f"{', '.join(f'{package} {version}' for package, version in results['versions'].items())}.\n"
    )


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"
