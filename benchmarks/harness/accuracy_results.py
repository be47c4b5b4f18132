"""What the accuracy benchmark's parts give, measured: averages, how sure they are, and who differs from whom.

Q test texts, M metrics.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elias_idx.metrics import evaluate_groups

from .accuracy_parts import PARTS, part_folder
from .bootstrap import METRICS, Array, intervals, metrics_of_texts, permutation_p
from .texts import TextSet, near_duplicates
from .work import IntArray


def measure(texts: TextSet, work_folder: Path) -> dict[str, Any]:
    """The results of a data set's parts, as far as they have run."""
    is_near = near_duplicates(texts.train.inputs, texts.test)
    counts = np.diff(texts.relevant.indptr)
    parts, metrics = [], {}
    for name, part in PARTS.items():
        folder = part_folder(work_folder, texts.name, name)
        if not (folder / "part.json").exists():
            continue
        record = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        entry = {"name": name, "title": part.title, "is_peer": part.is_peer, **record}
        with np.load(folder / "predicted.npz") as arrays:
            lines = {line: arrays[line] for line in arrays.files}
        if "predicted" in lines:
            metrics[name] = metrics_of_texts(lines["predicted"], texts.relevant)
            entry |= _measured(lines.pop("predicted"), texts, is_near)
            entry["steps"] = [
                {"title": line, "metrics": _averages(metrics_of_texts(predicted, texts.relevant))}
                for line, predicted in lines.items()
            ]
        parts.append(entry)
    return {
        "name": texts.name,
        "split": texts.split,
        "num_training_texts": len(texts.train),
        "num_texts": len(texts.test),
        "num_texts_without_labels": int((counts == 0).sum()),
        "num_labels": texts.train.labels.shape[1],
        "num_unseen_labels": texts.relevant.shape[1] - texts.train.labels.shape[1],
        "num_near_duplicates": int(is_near.sum()),
        "parts": parts,
        "comparisons": _comparisons(metrics),
    }


def _measured(predicted: IntArray, texts: TextSet, is_near: np.ndarray) -> dict[str, Any]:
    metrics = metrics_of_texts(predicted, texts.relevant)
    groups = evaluate_groups(predicted, texts.relevant, texts.label_counts)
    return {
        "metrics": _averages(metrics),
        "without_near_duplicates": _averages(metrics[~is_near]),
        "groups": {
            group: {name: round(value, 3) for name, value in values.items()} for group, values in groups.items()
        },
    }


def _averages(metrics: Array) -> dict[str, list[float]]:
    """Each metric's average and the ends of its 95 % interval, of the texts that have labels."""
    known = metrics[~np.isnan(metrics).any(1)]
    low, high = intervals(known)
    return {
        name: [round(float(value), 3) for value in row]
        for name, row in zip(METRICS, np.stack([known.mean(0), low, high], 1), strict=True)
    }


def _comparisons(metrics: dict[str, Array]) -> list[dict[str, Any]]:
    """Each part of elias_idx against the best peer, which may be another one for each metric."""
    peers = [name for name in metrics if PARTS[name].is_peer]
    ours = [name for name in metrics if not PARTS[name].is_peer]
    return [entry for name in ours for entry in _against_best(name, peers, metrics)] if peers else []


def _against_best(name: str, peers: Sequence[str], metrics: dict[str, Array]) -> list[dict[str, Any]]:
    known = ~np.isnan(metrics[name]).any(1)
    averages = np.stack([metrics[peer][known].mean(0) for peer in peers])
    best = [peers[place] for place in averages.argmax(0)]
    theirs = np.stack([metrics[peer][known][:, column] for column, peer in enumerate(best)], 1)
    differences = metrics[name][known] - theirs
    low, high = intervals(differences)
    p = permutation_p(differences)
    return [
        {
            "part": name,
            "metric": metric,
            "peer": best[column],
            "difference": [round(float(value[column]), 3) for value in (differences.mean(0), low, high)],
            "p": round(float(p[column]), 5),
        }
        for column, metric in enumerate(METRICS)
    ]
