"""Injecting faults into forked children, which spares them the imports, and looking at what is left."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 120
"""Seconds after which a child counts as hung."""


class Ended(NamedTuple):
    """How a child ended, and what it wrote."""

    status: int
    """Its exit code, or minus the signal that ended it."""
    output: str

    @property
    def last_line(self) -> str:
        return self.output.strip().rpartition("\n")[2]


class Skipped(Exception):
    """A kind of fault can't be injected on this machine."""


def in_child(
    action: Callable[[], Any],
    *,
    setup: Callable[[], Any] | None = None,
    after: float | None = None,
    send: int = signal.SIGKILL,
    meanwhile: Callable[[], Any] | None = None,
) -> Ended:
    """Runs the action in a forked child.

    Args:
        action: what the child does; an exception ends it with exit code 3, and its type and text as the last line.
        setup: is called in the child before.
        after: seconds after which the child gets a signal, if it is still there, or `meanwhile` is called.
        send: that signal.
        meanwhile: what happens instead of a signal.
    """
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            _be_child(action, setup, output.fileno())
        status = None
        if after is not None:
            status = _wait(child, after)
            if status is None and meanwhile is not None:
                meanwhile()
            elif status is None:
                os.kill(child, send)
        if status is None and (status := _wait(child, PATIENCE)) is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"a child hung for {PATIENCE} seconds")
        output.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), output.read().decode(errors="replace"))


def _be_child(action: Callable[[], Any], setup: Callable[[], Any] | None, output: int) -> None:
    code = 0
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.__stdout__
        sys.stderr = sys.__stderr__
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if setup is not None:
            setup()
        action()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 3
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """The child's status, or None if it is still there after so long."""
    end = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() >= end:
            return None
        time.sleep(0.0005)


def seconds_of(action: Callable[[], Any]) -> float:
    """How long the action takes in a child, in which it must succeed."""
    start = time.monotonic()
    ended = in_child(action)
    assert ended.status == 0, ended.output
    return time.monotonic() - start


def moment(rng: random.Random, seconds: float) -> float:
    """A random moment of what takes so long."""
    return rng.uniform(0, 0.9 * seconds)


def tree(folder: Path) -> dict[str, str]:
    """The checksums of all files below a folder, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Callable[..., None]]:
    """A file system of so many bytes at the folder; gives what changes its size or makes it read-only.

    Raises:
        Skipped: mounting isn't permitted.
    """
    folder.mkdir(exist_ok=True)
    if subprocess.run(_mount(folder, num_bytes), capture_output=True, check=False).returncode:
        raise Skipped("mounting isn't permitted")

    def change(num_bytes: int = num_bytes, mode: str = "rw") -> None:
        subprocess.run(_mount(folder, num_bytes, "remount", mode), check=True, capture_output=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, num_bytes: int, *options: str) -> list[str]:
    pages = max(num_bytes // 4096, 1)
    return ["mount", "-t", "tmpfs", "-o", ",".join([f"size={4096 * pages}", *options]), "tmpfs", str(folder)]


def disk_use(folder: Path) -> int:
    """Bytes that a folder takes on a small disk, of whole pages."""
    return 4096 * sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())
