"""Ctrl-C and SIGTERM: a command ends in order, with a line that says how to go on, and with the shell's exit codes."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which ends a command as Ctrl-C does."""


def heed_sigterm() -> None:
    """Makes SIGTERM raise `Terminated`, unless the process was started to ignore it."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what signal handlers are given
    # A second one must not disturb the end that this one begins.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def stop(interrupt: KeyboardInterrupt, how_to_go_on: str = "") -> NoReturn:
    """Ends the process with a line instead of a traceback."""
    print(f"\nStopped. {how_to_go_on}".rstrip(" "), file=sys.stderr)
    sys.exit(exit_code(interrupt))
