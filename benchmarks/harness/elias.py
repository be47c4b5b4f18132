"""elias_idx as parts of the accuracy benchmark: its presets without any option, and an ensemble of three seeds.

Q test texts, L labels, C clusters, n candidates of all texts together.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import EVIDENCE, Evidence, Index
from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.features import TextFeatures
from elias_idx.model import Model
from elias_idx.train import EpochResult, train_model
from elias_idx.train.auto import resolved

from .work import IntArray, K, Outcome, Work

_MEMBERS = ("full-0", "full-1", "full-2")
_TEXTS_AT_ONCE = 512


def default_features(data: TrainingSet) -> TextFeatures:
    """The features that training chooses by itself."""
    return TextFeatures(resolved(Config(), data).blocks)


def fast(work: Work) -> Outcome:
    """The preset fast: the dense model alone."""
    return Outcome(_timed_prediction(_train(work, "fast", 0), work))


def full(seed: int, work: Work) -> Outcome:
    """The preset full, which is the default."""
    return Outcome(_timed_prediction(_train(work, "full", seed), work))


def full_without_label_texts(work: Work) -> Outcome:
    """The same for labels that have texts, as if they had none."""
    train = work.texts.train
    nameless = TrainingSet(train.inputs, train.labels, label_names=train.label_names)
    return full(0, replace(work, texts=replace(work.texts, train=nameless)))


def full_in_steps(seed: int, work: Work) -> Outcome:
    """The same, and what each part of the model adds."""
    model = _train(work, "full", seed)
    predicted = _timed_prediction(model, work)
    embeddings, features = model.encode(work.texts.test), model.features.transform(work.texts.test)
    evidence = model.index.evidence(
        embeddings, features, num_candidates=max(K, model.index.num_candidates), num_threads=work.num_threads
    )
    steps = {
        "stage 1, fixed clusters": _predict(Model.load(work.folder / "stage1"), work),
        "stage 2, learned adjacency": _predict(model, work, fusion=False),
        **_fixed_mixtures(evidence, model.index, _training_ids(model.index, work)),
    }
    recall = [*_recall_of_search(model.index, embeddings, work), _recall_of_candidates(evidence, model.index, work)]
    return Outcome(predicted, steps, {"recall": recall, "training": dict(model.report)})


def ensemble(work: Work) -> Outcome:
    """The models of the preset full with three seeds, whose times count too."""
    folders = [work.folder.parent / name for name in _MEMBERS]
    command = [sys.executable, "-m", "elias_idx", "ensemble", *(str(folder / "model") for folder in folders)]
    with work.stopwatch.time("train"):
        subprocess.run([*command, "--out", str(work.folder / "model")], check=True)
    for folder in folders:
        record = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        work.stopwatch.add("train", **record["seconds"]["train"])
    return Outcome(_timed_prediction(Model.load(work.folder / "model"), work))


def _train(work: Work, preset: str, seed: int) -> Model:
    """The model; beside it, in "stage1", what it was after the last stage 1."""

    def keep_stage1(result: EpochResult) -> None:
        if result.ends_stage and result.progress.stage == 1:
            result.model().save(work.folder / "stage1", overwrite=True)

    config = Config(preset=preset, seed=seed, num_threads=work.num_threads)
    data, dev = work.texts.train, None
    if preset == "full" and work.texts.like_test is not None:
        data, dev = work.texts.like_test
    with work.stopwatch.time("train"):
        return train_model(
            data,
            work.folder / "model",
            config,
            dev=dev,
            refit=dev is not None,
            if_exists="overwrite",
            on_epoch=keep_stage1,
        )


def _timed_prediction(model: Any, work: Work) -> IntArray:
    with work.stopwatch.time("predict"):
        return _predict(model, work)


def _predict(model: Any, work: Work, **options: Any) -> IntArray:
    """The best labels' ids in the numbering of the training set, [Q, K]."""
    names = model.predict(work.texts.test, K, num_threads=work.num_threads, **options).names
    ids = {name: number for number, name in enumerate(work.texts.train.label_names)}
    predicted = np.full((len(names), K), -1)
    for row, own in enumerate(names):
        predicted[row, : len(own)] = [ids[name] for name in own]
    return predicted


def _fixed_mixtures(evidence: Evidence, index: Index, ids: IntArray) -> dict[str, IntArray]:
    """Rankings by parts of the model with equal weights, as geometric means of probabilities; nothing is learned."""
    known = dict(zip(EVIDENCE, evidence.values.T, strict=True))
    scores = np.where(known["found"] > 0, known["log_dense"], -np.inf)
    mixtures = {}
    if index.has_ranker:
        scores = scores + known["log_hinge"]
        mixtures["+ ranker, equal weights"] = _best(evidence, scores, ids)
    if index.has_neighbours:
        # Those that the dense search didn't find have a low log_dense.
        scores = np.where(known["found"] > 0, scores, known["log_dense"] + known["log_hinge"]) + known["log_votes"]
        mixtures["+ neighbours, equal weights"] = _best(evidence, scores, ids)
    return mixtures


def _best(evidence: Evidence, scores: npt.NDArray[np.floating[Any]], ids: IntArray) -> IntArray:
    """The candidates with the highest scores of each text, [Q, K], padded with −1; −∞ is none.

    Args:
        evidence: the candidates.
        scores: of each of them, [n].
        ids: the training set's numbers of the index's labels, [L].
    """
    counts = np.diff(evidence.offsets)
    texts = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((-scores, texts))
    place = np.arange(len(order)) - np.repeat(evidence.offsets[:-1], counts)
    kept = (place < K) & (scores[order] > -np.inf)
    predicted = np.full((len(counts), K), -1)
    predicted[texts[kept], place[kept]] = ids[evidence.labels[order][kept]]
    return predicted


def _training_ids(index: Index, work: Work) -> IntArray:
    """The training set's numbers of the index's labels, [L]."""
    ids = {name: number for number, name in enumerate(work.texts.train.label_names)}
    return np.array([ids[name] for name in index.names(np.arange(index.num_labels))])


def _recall_of_search(index: Index, embeddings: npt.NDArray[np.float32], work: Work) -> Iterator[dict[str, Any]]:
    """Of the labels that the beam's clusters lead to, and of the shortlist, both of the index's own sizes."""
    indptr, labels, _ = index.adjacency
    leads_to = sp.csr_matrix((np.ones(len(labels), np.float32), labels, indptr), (index.num_clusters, index.num_labels))
    starts = range(0, len(embeddings), _TEXTS_AT_ONCE)
    beams = (index.beam(embeddings[start : start + _TEXTS_AT_ONCE]).clusters for start in starts)
    reached = (_rows(beam, index.num_clusters) @ leads_to for beam in beams)
    yield {"candidates": f"the beam's clusters ({index.beam_size})", **_recall(reached, index, work)}
    shortlists = (index.shortlist(embeddings[start : start + _TEXTS_AT_ONCE]).labels for start in starts)
    found = (_rows(shortlist, index.num_labels) for shortlist in shortlists)
    yield {"candidates": f"shortlist ({index.shortlist_size:,})", **_recall(found, index, work)}


def _recall_of_candidates(evidence: Evidence, index: Index, work: Work) -> dict[str, Any]:
    """Of what the fusion scores: the best of the shortlist and, in models that use them, the neighbours' labels."""
    ones = np.ones(len(evidence.labels), np.float32)
    found = sp.csr_matrix((ones, evidence.labels, evidence.offsets), (len(work.texts.test), index.num_labels))
    starts = range(0, len(work.texts.test), _TEXTS_AT_ONCE)
    parts = (found[start : start + _TEXTS_AT_ONCE] for start in starts)
    return {"candidates": "the fusion's candidates", **_recall(parts, index, work)}


def _rows(columns: IntArray, num_columns: int) -> sp.csr_matrix:
    """A matrix with ones in these columns of each row, −1 being none."""
    rows, places = np.nonzero(columns >= 0)
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns[rows, places])), (len(columns), num_columns))


def _recall(found: Iterable[sp.csr_matrix], index: Index, work: Work) -> dict[str, float]:
    """How many labels are found a text, and which share of its own.

    Args:
        found: the labels found of some texts at a time, CSR [≤ Q, L], in the index's numbers.
        index: which has the labels.
        work: of the data set.
    """
    relevant = work.texts.relevant
    wanted = relevant[:, _training_ids(index, work)]
    first, sizes, shares = 0, [], []
    for part in found:
        last = first + part.shape[0]
        hits = np.diff(part.astype(bool).multiply(wanted[first:last].astype(bool)).tocsr().indptr)
        counts = np.diff(relevant.indptr[first : last + 1])
        shares.append(hits[counts > 0] / counts[counts > 0])
        sizes.append(np.diff(part.indptr))
        first = last
    return {"count": float(np.concatenate(sizes).mean()), "recall": 100 * float(np.concatenate(shares).mean())}
