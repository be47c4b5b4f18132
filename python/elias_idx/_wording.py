"""Words of lines for people."""

from __future__ import annotations

from pathlib import Path


def counted(number: int, noun: str) -> str:
    """A number of things: "1 label", "1,200 labels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(path: Path) -> str:
    """A path of which no more than the end is shown: at most 50 characters."""
    shown = str(path)
    return shown if len(shown) <= 50 else f"...{shown[-47:]}"
