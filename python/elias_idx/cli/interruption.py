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


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which ends a command as Ctrl-C does."""


def heed_sigterm() -> None:
    """Makes SIGTERM raise `Terminated` in this process, unless it was started to ignore it."""
    # Python runs and takes handlers in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        return
    own_process = os.getpid()

    def terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what handlers are given
        # The next one ends the process at once, in case this one is swallowed somewhere.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != own_process:
            # A forked child, for which nobody waits to catch anything.
            os.kill(os.getpid(), signal.SIGTERM)
        raise Terminated

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def interruption_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interruption that an error was made of, if it was: what it meets may wrap it, as `__set_name__` does."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error


@contextmanager
def stoppable(how_to_go_on: Callable[[], str] = str) -> Iterator[None]:
    """Ends the process with a line instead of a traceback where what is done in it is interrupted."""
    try:
        yield
    except BaseException as error:
        interrupt = interruption_behind(error)
        if interrupt is None:
            raise
        print(f"\nStopped. {how_to_go_on()}".rstrip(" "), file=sys.stderr)
        sys.exit(exit_code(interrupt))
