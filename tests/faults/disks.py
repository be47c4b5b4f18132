"""Disks that are full, read-only or gone: an error says so, nothing is half-written, and work goes on afterwards."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faults.harness import Ended, disk_use, in_child, moment, names, seconds_of, small_disk, tree
from faults.subjects import Subjects, run_command, verify, writers

TINY_OPTIONS = [
    *("--dim", 16, "--num-clusters", 8, "--labels-per-cluster", 20, "--stage1-epochs", 2, "--stage2-epochs", 1),
    *("--batch-size", 32, "--train-beam-size", 3, "--train-shortlist-size", 20, "--num-threads", 1),
]
FULL = "No space left on device"
GONE = ("No such file", "is no folder", "missing", "has no index.json", "is no model", "there is no model")


def says_why(ended: Ended, reasons: tuple[str, ...]) -> bool:
    """Whether the child ended with an error of its own that names the reason and a path, and not by a signal."""
    last = ended.last_line
    return ended.status in (1, 3) and any(reason in last for reason in reasons) and "/" in last


def fill_while_saving(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Everything that writes a folder, on disks that become full at any page of it."""
    seen: Counter[str] = Counter()
    for name, (original, write) in writers(subjects).items():
        with small_disk(work / "disk", 64 << 20) as change:
            target = work / "disk" / "target"
            shutil.copytree(original, target)
            used = disk_use(work / "disk")
            assert in_child(partial(write, target)).status == 0
            new, needed = tree(target), disk_use(work / "disk")
            for _ in range(count):
                shutil.rmtree(target)
                shutil.copytree(original, target)
                old = tree(target)
                change(used + rng.randrange(8192, needed))
                ended = in_child(partial(write, target))
                if ended.status:
                    assert says_why(ended, (FULL,)), f"{name}: {ended.output}"
                    assert tree(target) == old
                    verify(target)
                    seen["disk full"] += 1
                else:
                    assert tree(target) == new
                    seen["fitted"] += 1
                assert names(work / "disk") == ["target"], names(work / "disk")
                change()
            assert in_child(partial(write, target)).status == 0
            assert tree(target) == new
    return seen


def jobs(subjects: Subjects) -> dict[str, Callable[[Path], Any]]:
    """What fills a folder step by step, and goes on when it is started again."""
    rows = subjects.new_rows
    return {
        "score": lambda folder: run_command(
            *("score", subjects.model, rows, "--out", folder / "out", "--batch-rows", 8, "--part-rows", 20),
            *("--num-threads", 1),
        ),
        "train fast": lambda folder: run_command(
            *("train", subjects.train_rows, "--out", folder / "out", "--preset", "fast", "--resume"),
            *("--checkpoint-steps", 4, *TINY_OPTIONS),
        ),
        "train full": lambda folder: run_command(
            *("train", subjects.train_rows, "--out", folder / "out", "--resume"),
            *("--checkpoint-steps", 4, *TINY_OPTIONS),
        ),
    }


def plots(subjects: Subjects) -> dict[str, Callable[[Path], Any]]:
    """What writes single files."""
    rows, model = subjects.new_rows, subjects.model
    few = ["--beam-sizes", "2", "--shortlist-sizes", "20", "--rounds", "1", "--num-threads", "1", "--dtypes", "float32"]
    return {
        "tune --plot": lambda folder: run_command("tune", model, rows, "--plot", folder / "plot", *few),
        "predict": lambda folder: run_command("predict", model, rows, "--out", folder / "out.jsonl", "--overwrite"),
    }


def fill_while_working(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Jobs and pictures on disks that become full; jobs go on where they were once there is room."""
    seen: Counter[str] = Counter()
    for name, work_in in {**jobs(subjects), **plots(subjects)}.items():
        (work / "undisturbed").mkdir(exist_ok=True)
        ended = in_child(partial(work_in, work / "undisturbed"))
        assert ended.status == 0, ended.output
        expected = tree(work / "undisturbed")
        with small_disk(work / "disk", 64 << 20) as change:
            for _ in range(count):
                needed = disk_use(work / "undisturbed")
                change(rng.randrange(8192, needed + needed // 2))
                ended = in_child(partial(work_in, work / "disk"))
                if ended.status:
                    assert says_why(ended, (FULL,)), f"{name}: {ended.output}"
                seen["disk full" if ended.status else "fitted"] += 1
                change()
                ended = in_child(partial(work_in, work / "disk"))
                assert ended.status == 0, ended.output
                if "tune" not in name:  # whose pictures show times
                    assert tree(work / "disk") == expected, f"{name}: {names(work / 'disk')}"
                _clear(work / "disk")
        _clear(work / "undisturbed")
    return seen


def make_read_only(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Everything that writes, on disks that can't be written to."""
    seen: Counter[str] = Counter()
    refused = ("Read-only file system", "can't be written to")
    with small_disk(work / "disk", 64 << 20) as change:
        target = work / "disk" / "target"
        for name, (original, write) in writers(subjects).items():
            shutil.copytree(original, target)
            old = tree(target)
            change(mode="ro")
            ended = in_child(partial(write, target))
            assert says_why(ended, refused), f"{name}: {ended.output}"
            assert tree(target) == old
            verify(target)
            change()
            shutil.rmtree(target)
            seen["read-only"] += 1
        for name, work_in in {**jobs(subjects), **plots(subjects)}.items():
            change(mode="ro")
            ended = in_child(partial(work_in, work / "disk"))
            assert says_why(ended, refused), f"{name}: {ended.output}"
            change()
            assert names(work / "disk") == []
            seen["read-only"] += 1
            # And in the midst of it.
            seconds = seconds_of(partial(work_in, work / "disk"))
            _clear(work / "disk")
            for _ in range(count):
                ended = in_child(
                    partial(work_in, work / "disk"), after=moment(rng, seconds), meanwhile=partial(_remount, change)
                )
                if ended.status:
                    assert says_why(ended, refused), f"{name}: {ended.output}"
                seen["read-only in the midst" if ended.status else "done before"] += 1
                change()
                ended = in_child(partial(work_in, work / "disk"))
                assert ended.status == 0, ended.output
                _clear(work / "disk")
    return seen


def _remount(change: Callable[..., None]) -> None:
    """Makes a disk read-only as soon as no file there is open for writing."""
    for _ in range(2000):
        try:
            change(mode="ro")
        except Exception:
            continue
        return


def take_away(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """The folder that is written to disappears meanwhile."""
    seen: Counter[str] = Counter()
    for name, (original, write) in writers(subjects).items():
        parent, target = work / "parent", work / "parent" / "target"
        shutil.copytree(original, target)
        seconds = seconds_of(partial(write, target))
        for _ in range(count):
            shutil.rmtree(parent, ignore_errors=True)
            shutil.copytree(original, target)
            ended = in_child(
                partial(write, target), after=moment(rng, seconds), meanwhile=partial(parent.rename, work / "gone")
            )
            assert ended.status == 0 or says_why(ended, GONE), f"{name}: {ended.output}"
            seen["folder gone" if ended.status else "done before"] += 1
            shutil.rmtree(work / "gone", ignore_errors=True)
        shutil.rmtree(parent, ignore_errors=True)
    return seen


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
