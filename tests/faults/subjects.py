"""What faults are injected into: a model, an index, rows, and everything that writes such folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elias_idx import Index, Model
from elias_idx.calibration import Calibration
from elias_idx.cli import main
from elias_idx.train import TrainingSet, train_model
from helpers_index import build
from helpers_training import TINY, topic_texts
from oracle import random_parts

TEXTS, LABELS = topic_texts()
NEW_TEXTS, NEW_LABELS = topic_texts(seed=1, per_topic=3)


class Subjects(NamedTuple):
    """Things on the disk."""

    model: Path
    index: Path
    train_rows: Path
    """JSON lines with labels."""
    new_rows: Path


def make(folder: Path) -> Subjects:
    """A full model, a larger index and rows, made once."""
    subjects = Subjects(folder / "model", folder / "index", folder / "train.jsonl", folder / "new.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    train_model(TrainingSet(TEXTS, LABELS), subjects.model, replace(TINY, preset="full"))
    larger_index().save(subjects.index)
    _write_rows(subjects.train_rows, TEXTS, LABELS)
    _write_rows(subjects.new_rows, NEW_TEXTS, NEW_LABELS)
    return subjects


def _write_rows(path: Path, texts: list[str], labels: list[list[str]]) -> None:
    rows = ({"text": text, "labels": own} for text, own in zip(texts, labels, strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def larger_index(**changes: Any) -> Index:
    """Of a megabyte and some."""
    parts = random_parts(7, num_labels=3000, dim=48, num_clusters=60, labels_per_cluster=300, num_queries=64)
    return build(parts, label_names=[f"label {label}" for label in range(3000)], **changes)


def run_command(*arguments: Any) -> None:
    """`elias-idx` with these arguments, as the shell would start it."""
    sys.argv = ["elias-idx", *map(str, arguments)]
    main()


def writers(subjects: Subjects) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """What replaces a folder: by name, the folder that is there before, and what writes over a copy of it."""
    ids = np.arange(0, 3000, 7)
    calibration = Calibration(np.array([0, 1], np.float32), np.array([0.1, 0.9], np.float32))
    one_new = {"new": ["brand new words here", "new words again"]}
    grid = ["--beam-sizes", "2", "--shortlist-sizes", "20", "--rounds", "1", "--num-threads", "1"]
    return {
        "Index.save": (subjects.index, lambda path: Index.load(path).with_defaults(7).save(path, overwrite=True)),
        "Index.build": (subjects.index, lambda path: larger_index(beam_size=9, path=path, overwrite=True)),
        "Index.quantize": (
            subjects.index,
            lambda path: Index.load(path).quantize("int8", path=path, overwrite=True),
        ),
        "Index.remove_labels": (
            subjects.index,
            lambda path: Index.load(path).remove_labels(ids, path=path, overwrite=True),
        ),
        "Model.save": (
            subjects.model,
            lambda path: Model.load(path).with_calibration(calibration).save(path, overwrite=True),
        ),
        "Model.with_defaults": (
            subjects.model,
            lambda path: Model.load(path).with_defaults(3, 30).save(path, overwrite=True),
        ),
        "Model.add_labels": (
            subjects.model,
            lambda path: Model.load(path).add_labels(one_new, num_threads=1).save(path, overwrite=True),
        ),
        "Model.quantize": (
            subjects.model,
            lambda path: Model.load(path).quantize("bfloat16", path=path, overwrite=True),
        ),
        "calibrate": (
            subjects.model,
            lambda path: run_command("calibrate", path, subjects.new_rows, "--num-threads", "1"),
        ),
        "tune --apply": (
            subjects.model,
            lambda path: run_command("tune", path, subjects.new_rows, "--apply", "--dtypes", "int8", *grid),
        ),
    }


def verify(folder: Path) -> None:
    """Opens an index or a model and recomputes its checksums."""
    (Index if (folder / "index.json").exists() else Model).load(folder).verify()
