"""Ctrl-C and SIGTERM: a command ends in order, with a line that says how to go on, and with the shell's exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# The signals that came, by number. The exception alone won't do: what it meets may make another one of it that tells
# nothing of it, as `__set_name__`, extension modules and the closing of generators do.
_came: list[int] = []


def heed_signals() -> None:
    """Makes SIGTERM raise KeyboardInterrupt as Ctrl-C does, and remembers both, unless the process ignores them."""
    # Python runs and takes handlers in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        return
    own_process = os.getpid()

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what handlers are given
        if signum == signal.SIGTERM:
            # The next one ends the process at once, in case this one is swallowed somewhere.
            signal.signal(signum, signal.SIG_DFL)
            if os.getpid() != own_process:
                # A forked child, for which nobody waits to catch anything.
                os.kill(os.getpid(), signum)
        _came.append(signum)
        raise KeyboardInterrupt

    for signum, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(signum) is default:
            signal.signal(signum, interrupt)


def stop_if_interrupted(error: BaseException, how_to_go_on: str = "") -> None:
    """Ends the process with a line and 128 + the signal's number if what failed was interrupted.

    Whatever error comes after a signal is taken for the interruption.
    """
    if _came or isinstance(error, KeyboardInterrupt):
        print(f"\nStopped. {how_to_go_on}".rstrip(" "), file=sys.stderr)
        sys.exit(128 + (_came[-1] if _came else signal.SIGINT))


@contextmanager
def stoppable(how_to_go_on: Callable[[], str] = str) -> Iterator[None]:
    """Ends the process with a line where what is done in it is interrupted."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        stop_if_interrupted(error, how_to_go_on())
        raise
