"""The parts of the accuracy benchmark: each trains something on a data set and predicts its test texts' labels.

A part runs in a process of its own, and what it gives is kept in a folder, so that it runs once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import elias, peers
from .environment import machine, versions
from .processes import in_process, peak_memory
from .texts import load_texts, set_name
from .work import Outcome, Part, Work

MAX_LABELS_ONE_VS_REST = 5000
PECOS = "libpecos"


def _peer(peer: peers.Peer, words_only: bool, work: Work) -> Outcome:
    with work.stopwatch.time("features"):
        extractor = peers.words() if words_only else elias.default_features(work.texts.train)
        examples = peers.Examples(
            extractor.fit_transform(work.texts.train.inputs),
            work.texts.train.labels,
            extractor.transform(work.texts.test),
            work.num_threads,
            work.pecos_python,
        )
    predicted, without, asked_without = peers.with_known_features(peer, examples, work.stopwatch)
    facts = {
        "num_features": examples.features.shape[1],
        "features_per_text": round(examples.features.nnz / examples.features.shape[0], 1),
        "training_texts_without_features": without,
        "test_texts_without_features": asked_without,
    }
    return Outcome(predicted, facts=facts)


PARTS: Mapping[str, Part] = {
    "omikuji-words": Part("Omikuji, words", partial(_peer, peers.omikuji, True), "omikuji"),
    "napkinxc-words": Part("napkinXC PLT, words", partial(_peer, peers.napkinxc, True), "napkinxc"),
    "pecos-words": Part("PECOS XR-Linear, words", partial(_peer, peers.pecos, True), PECOS),
    "omikuji": Part("Omikuji, our features", partial(_peer, peers.omikuji, False), "omikuji"),
    "napkinxc": Part("napkinXC PLT, our features", partial(_peer, peers.napkinxc, False), "napkinxc"),
    "pecos": Part("PECOS XR-Linear, our features", partial(_peer, peers.pecos, False), PECOS),
    "neighbours": Part("nearest neighbours, our features", partial(_peer, peers.neighbours, False)),
    "one-vs-rest": Part(
        "a linear SVM for each label, words",
        partial(_peer, peers.one_vs_rest, True),
        "napkinxc",
        max_labels=MAX_LABELS_ONE_VS_REST,
        is_slow=True,
    ),
    "fast": Part("**elias_idx**, fast", elias.fast, is_peer=False),
    "full-0": Part("**elias_idx**", partial(elias.full_in_steps, 0), is_peer=False),
    "no-label-texts": Part(
        "**elias_idx**, without label texts", elias.full_without_label_texts, is_peer=False, needs_label_texts=True
    ),
    "full-1": Part("**elias_idx**, seed 1", partial(elias.full, 1), is_peer=False),
    "full-2": Part("**elias_idx**, seed 2", partial(elias.full, 2), is_peer=False),
    "ensemble": Part("**elias_idx**, ensemble of 3", elias.ensemble, is_peer=False),
}
QUICK_PARTS = tuple(name for name, part in PARTS.items() if not part.is_slow)


def run_part(name: str, source: str, work_folder: Path, num_threads: int, pecos_python: str, again: bool) -> None:
    """Runs a part in a new process, unless its results are there already."""
    folder = part_folder(work_folder, set_name(source), name)
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "part.json").exists():
        in_process(_run, name, source, folder, num_threads, pecos_python)


def part_folder(work_folder: Path, set_name: str, part: str) -> Path:
    """Where a part's results are: `part.json` and `predicted.npz`."""
    return work_folder / set_name / part


def _run(name: str, source: str, folder: Path, num_threads: int, pecos_python: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(folder / "log.txt")
    part, texts = PARTS[name], load_texts(source)
    record: dict[str, Any] = {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "versions": versions(("elias_idx", "numpy", "scikit-learn", "scipy", "torch")),
        "threads": num_threads,
        "load_average": machine()["load_average"],
    }
    work = Work(texts, folder, num_threads, pecos_python)
    outcome = Outcome(None)
    if part.package is not None:
        record["versions"][part.package] = _version(
            part.package, pecos_python if part.package == PECOS else sys.executable
        )
    if texts.train.labels.shape[1] > part.max_labels:
        record["left_out"] = f"more than {part.max_labels:,} labels"
    elif part.needs_label_texts and texts.train.label_texts is None:
        record["left_out"] = "labels have no texts"
    elif part.package is not None and record["versions"][part.package] is None:
        record["left_out"] = f"{part.package} is not installed"
    else:
        outcome = part.run(work)
    np.savez_compressed(folder / "predicted.npz", **outcome.arrays())
    record["seconds"] = work.stopwatch.seconds
    record["peak_memory"] = peak_memory()
    record["facts"] = dict(outcome.facts)
    (folder / "part.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _log_to(path: Path) -> None:
    """Sends what this process and its libraries print to a file."""
    with path.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def _version(package: str, python: str) -> str | None:
    """The version of a package that a Python has; None if it doesn't."""
    script = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
