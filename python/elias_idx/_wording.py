"""Words of lines for people."""

from __future__ import annotations

import re
from pathlib import Path

# What a terminal obeys instead of showing it, and JSON doesn't escape by itself: control characters, line and
# paragraph separators, and what turns the direction of writing over.
OBEYED = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
# The control characters below too, but tabs and line feeds; and what UTF-8 can't hold.
_UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{OBEYED}\ud800-\udfff]")


def counted(number: int, noun: str) -> str:
    """A number of things: "1 label", "1,200 labels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """The text as a terminal may have it: what comes with a model or data can't move its cursor or change its title."""
    return _UNPRINTABLE.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def shortened(path: Path) -> str:
    """A path of which no more than the end is shown: at most 50 characters."""
    shown = str(path)
    return shown if len(shown) <= 50 else f"...{shown[-47:]}"
