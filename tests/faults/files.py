"""Files that are cut off or have flipped bits: found, or at least no crash."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from elias_idx import EliasIdxError, Index, Model
from faults.harness import in_child
from faults.subjects import NEW_TEXTS, Subjects, verify

QUERIES = np.random.default_rng(0).standard_normal((16, 48)).astype(np.float32)


def flip_bits(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """One bit of any file of a model: `verify` finds it; without, no crash, whatever is asked."""
    seen: Counter[str] = Counter()
    shutil.copytree(subjects.model, work / "model")
    for path in sorted(path for path in (work / "model").rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(count):
            at = rng.randrange(len(whole))
            # Headers and manifests matter more than their size.
            at = at if rng.random() < 0.5 else at % min(len(whole), 400)
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            ended = in_child(partial(verify, work / "model"))
            assert ended.status == 3, f"{path}, byte {at}: {ended.output or 'not found'}"
            assert ended.last_line.startswith("FormatError: "), ended.output
            assert str(work) in ended.last_line, f"{path}, byte {at}: {ended.output}"
            ended = in_child(partial(use, work / "model"))
            assert ended.status == 0, f"{path}, byte {at}: {ended.output}"
            seen["found by verify; without, " + ended.last_line] += 1
        path.write_bytes(whole)
    return seen


def use(folder: Path) -> None:
    """Whatever a model is for; only the library's own errors may come of a damaged one."""
    try:
        model = Model.load(folder)
        assert isinstance(model, Model)
        found = model.predict(NEW_TEXTS[:20], k=5, num_threads=1)
        model.predict(NEW_TEXTS[:5], k=5, num_threads=1, fusion=False)
        model.explain(NEW_TEXTS[0], found.names[0][:2])
        model.index.names(range(model.index.num_labels))
        model.index.clusters(0)
    except (EliasIdxError, ValueError) as error:
        print("refused" if isinstance(error, EliasIdxError) else f"refused by {type(error).__name__}: {error}")
    else:
        print("other numbers or none")


def cut_off(subjects: Subjects, work: Path, count: int, rng: random.Random) -> Counter[str]:
    """Files that are shorter than they were: before they are opened that is found, and read ones don't mind."""
    seen: Counter[str] = Counter()
    shutil.copytree(subjects.index, work / "index")
    whole = {path: path.read_bytes() for path in sorted((work / "index").iterdir())}
    for path, content in whole.items():
        for _ in range(count):
            size = rng.randrange(len(content))
            path.write_bytes(content[:size])
            for mmap in (True, False):
                ended = in_child(partial(Index.load, work / "index", mmap=mmap))
                assert ended.status == 3, ended.output
                assert ended.last_line.startswith("FormatError: "), ended.output
                assert path.name in ended.last_line, ended.output
                seen["found at load"] += 1
            path.write_bytes(content)
            ended = in_child(partial(_cut_while_in_use, work / "index", path, size, False))
            assert ended.status == 0, ended.output
            seen["read into memory: unharmed"] += 1
            path.write_bytes(content)
            ended = in_child(partial(_cut_while_in_use, work / "index", path, size, True))
            # Touching a page beyond a file's end is SIGBUS; the last page has zeros behind the file's end.
            panicked = "a thread panicked" in ended.last_line
            assert ended.status in (0, -signal.SIGBUS) or panicked, ended.output
            outcome = "RuntimeError" if panicked else "ended by SIGBUS" if ended.status else "not touched again"
            seen[f"mapped: {outcome}"] += 1
            path.write_bytes(content)
    return seen


def _cut_while_in_use(folder: Path, path: Path, size: int, mmap: bool) -> None:
    index = Index.load(folder, mmap=mmap)
    expected = index.search(QUERIES, num_threads=1)
    with path.open("r+b") as file:
        file.truncate(size)
    found = index.search(QUERIES, num_threads=1)
    assert mmap or all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
