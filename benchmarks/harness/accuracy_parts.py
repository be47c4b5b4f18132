"""The parts of the accuracy benchmark: each trains something on a data set and predicts its test texts' labels.

A part runs in a process of its own, and what it gives is kept in a folder, so that it runs once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import peers
from .environment import machine, versions
from .peers import IntArray
from .processes import Stopwatch, in_process, memory
from .texts import TextSet, load_texts, set_name


@dataclass(frozen=True)
class Work:
    """What a part has to do it with.

    Attributes:
        texts: the data set.
        folder: for what the part or a later one may use again, such as trained models.
        num_threads: CPU threads to use.
        pecos_python: the Python that has PECOS.
        stopwatch: takes the times.
    """

    texts: TextSet
    folder: Path
    num_threads: int
    pecos_python: str
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(frozen=True)
class Outcome:
    """What a part gives.

    Attributes:
        predicted: for each line of the results the label ids found, [Q, ≤ 100], best first, padded with −1.
        facts: what else the results say of the part.
    """

    predicted: Mapping[str, IntArray]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        packages: those whose versions its results name.
        run: does the work. NotImplementedError and ImportError say why it can't; that is a result too.
    """

    packages: tuple[str, ...]
    run: Callable[[Work], Outcome]


def _peer(name: str, peer: peers.Peer, features: Callable[[Work], Any], work: Work) -> Outcome:
    with work.stopwatch.time("features"):
        extractor = features(work)
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
    return Outcome({name: predicted}, facts)


def _words(_: Work) -> Any:
    """tf-idf of words as scikit-learn has it, with sublinear term frequencies."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)


def _own(_: Work) -> Any:
    """The features that elias_idx chooses for these texts."""
    from elias_idx.config import Config
    from elias_idx.features import TextFeatures

    return TextFeatures(Config().features)


PARTS: Mapping[str, Part] = {
    "omikuji-words": Part(("omikuji",), partial(_peer, "Omikuji, words", peers.omikuji, _words)),
    "omikuji": Part(("omikuji",), partial(_peer, "Omikuji, our features", peers.omikuji, _own)),
    "napkinxc": Part(("napkinxc",), partial(_peer, "napkinXC PLT, our features", peers.napkinxc, _own)),
    "pecos": Part((), partial(_peer, "PECOS XR-Linear, our features", peers.pecos, _own)),
    "neighbours": Part(("scipy",), partial(_peer, "nearest neighbours, our features", peers.neighbours, _own)),
    "one-vs-rest": Part(("napkinxc",), partial(_peer, "one linear SVM a label, words", peers.one_vs_rest, _words)),
}


def run_part(name: str, source: str, work_folder: Path, num_threads: int, pecos_python: str, again: bool) -> None:
    """Runs a part in a new process, unless its results are there already."""
    folder = part_folder(work_folder, source, name)
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "part.json").exists():
        in_process(_run, name, source, folder, num_threads, pecos_python)


def part_folder(work_folder: Path, source: str, name: str) -> Path:
    """Where a part's results are: `part.json` and `predicted.npz`."""
    return work_folder / set_name(source) / name


def _run(name: str, source: str, folder: Path, num_threads: int, pecos_python: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(folder / "log.txt")
    began = datetime.now().astimezone().isoformat(timespec="minutes")
    load_average = machine()["load_average"]
    work = Work(load_texts(source), folder, num_threads, pecos_python)
    try:
        outcome = PARTS[name].run(work)
        failed = None
    except (ImportError, NotImplementedError) as error:
        outcome, failed = Outcome({}), str(error)
    np.savez_compressed(folder / "predicted.npz", **outcome.predicted)
    record = {
        "date": began,
        "versions": versions(PARTS[name].packages if failed is None else ()),
        "threads": num_threads,
        "load_average": load_average,
        "seconds": work.stopwatch.seconds,
        "peak_memory": max(memory("VmHWM"), outcome.facts.get("peak_memory", 0)),
        "failed": failed,
        "facts": dict(outcome.facts),
    }
    (folder / "part.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _log_to(path: Path) -> None:
    """Sends what this process and libraries in it print to a file."""
    with path.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
