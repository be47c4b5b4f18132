"""Folders that are replaced by a process that is killed: afterwards there is the old one or the new one."""

from __future__ import annotations

import random
import resource
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

from faults.harness import in_child, moment, names, seconds_of, tree
from faults.subjects import Subjects, verify, writers


def kill(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Kills whatever writes folders, at random moments."""
    seen: Counter[str] = Counter()
    for name, (original, write) in writers(subjects).items():
        target = work / "target"
        _copy(original, target)
        old = tree(target)
        seconds = seconds_of(partial(write, target))
        new = tree(target)
        assert new != old, name
        # At a certain point, whatever the machine's speed: amid the writing of the largest file.
        most = rng.randrange(1, max(path.stat().st_size for path in target.rglob("*")))
        _copy(original, target)
        ended = in_child(partial(write, target), setup=partial(_be_killed_at, most))
        assert ended.status == -signal.SIGXFSZ, f"{name}: {ended}"
        assert tree(target) == old, name
        assert len(names(work)) == 2, f"{name} writes elsewhere than beside its target"
        seen["killed amid a file"] += 1
        for _ in range(count):
            _copy(original, target)
            ended = in_child(partial(write, target), after=moment(rng, seconds))
            assert ended.status in (0, -signal.SIGKILL), ended.output
            found = tree(target)
            assert found in (old, new), f"{name}: {sorted(found)}"
            verify(target)
            left = ", leftovers beside it" if len(names(work)) > 1 else ""
            outcome = "old folder there" if found == old else "new folder there"
            seen[f"killed, {outcome}{left}" if ended.status else "done before the kill"] += 1
        # Whatever the kills have left, the next one works and clears up.
        _copy(original, target)
        ended = in_child(partial(write, target))
        assert ended.status == 0, ended.output
        assert tree(target) == new
        assert names(work) == ["target"], f"{name} leaves {names(work)}"
    return seen


def _copy(original: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(original, target)


def _be_killed_at(num_bytes: int) -> None:
    """Has the system kill this process when it writes a file that is longer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
