"""Commands that get Ctrl-C or SIGTERM: they end at once with the shell's exit code, and go on where they were."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faults.disks import jobs, plots
from faults.harness import in_child, moment, names, seconds_of, tree
from faults.subjects import Subjects, run_command

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
GOES_ON = {"score": "The same command goes on", "train fast": "--resume", "train full": "--resume"}


def interrupt(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Interrupts commands at random moments; what can go on does, and ends as if undisturbed."""
    seen: Counter[str] = Counter()
    commands: dict[str, Callable[[Path], Any]] = {
        **jobs(subjects),
        **plots(subjects),
        "calibrate": lambda folder: run_command(
            "calibrate", subjects.model, subjects.new_rows, "--out", folder / "out", "--overwrite"
        ),
    }
    for name, work_in in commands.items():
        (work / "undisturbed").mkdir()
        seconds = seconds_of(partial(work_in, work / "undisturbed"))
        expected = tree(work / "undisturbed")
        for sent in (signal.SIGINT, signal.SIGTERM):
            for _ in range(count):
                folder = work / "interrupted"
                folder.mkdir()
                ended = in_child(partial(work_in, folder), after=moment(rng, seconds), send=sent)
                what = f"{name}, {sent.name}: {ended}\n{names(folder)}"
                # Before the command has begun or after it has ended, Python itself answers.
                outside = ended.status == -sent or (ended.status == 3 and "elias_idx/cli/" not in ended.output)
                assert outside or ended.status in (0, CODES[sent]), what
                if ended.status == CODES[sent]:
                    assert "Stopped." in ended.output, what
                    assert "Traceback" not in ended.output, what
                    # A model that is whole has nothing to go on with, nor has a job that has said what it came to.
                    unfinished = folder / ("out" if name == "score" else "out.training")
                    if unfinished.exists() and " rows, in " not in ended.output:
                        assert GOES_ON[name] in ended.output, what
                seen["not yet begun" if outside else "ended in order" if ended.status else "done before"] += 1
                ended = in_child(partial(work_in, folder))
                assert ended.status == 0, ended.output
                if "tune" not in name:  # whose pictures show times
                    assert tree(folder) == expected, what
                assert names(folder) == names(work / "undisturbed"), what
                shutil.rmtree(folder)
        shutil.rmtree(work / "undisturbed")
    return seen


def kill(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Kills training and scoring again and again until they are done: the files are those of an undisturbed run."""
    seen: Counter[str] = Counter()
    for name, work_in in jobs(subjects).items():
        (work / "undisturbed").mkdir()
        seconds = seconds_of(partial(work_in, work / "undisturbed"))
        (work / "killed").mkdir()
        for _ in range(count):
            ended = in_child(partial(work_in, work / "killed"), after=moment(rng, seconds))
            assert ended.status in (0, -signal.SIGKILL), ended.output
            seen[f"{name}: {'killed' if ended.status else 'done before'}"] += 1
            if not ended.status:
                assert tree(work / "killed") == tree(work / "undisturbed"), name
                shutil.rmtree(work / "killed")
                (work / "killed").mkdir()
        ended = in_child(partial(work_in, work / "killed"))
        assert ended.status == 0, ended.output
        assert tree(work / "killed") == tree(work / "undisturbed"), name
        assert names(work / "killed") == names(work / "undisturbed"), names(work / "killed")
        shutil.rmtree(work / "killed")
        shutil.rmtree(work / "undisturbed")
    return seen
