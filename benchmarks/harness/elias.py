"""elias_idx as a part of the accuracy benchmark: its presets without any option, and ensembles of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.features import TextFeatures
from elias_idx.model import Model
from elias_idx.train import EpochResult, train_model

from .work import IntArray, K, Outcome, Work


def default_features(train: TrainingSet) -> TextFeatures:
    """The features that training chooses by itself."""
    return TextFeatures(Config().features)


def fast(work: Work) -> Outcome:
    """The preset fast: the dense model alone."""
    model, _ = _train(work, "fast", 0)
    with work.stopwatch.time("predict"):
        predicted = _predict(model, work)
    return Outcome(predicted)


def full(seed: int, work: Work) -> Outcome:
    """The preset full, which is the default, and what each of its parts adds."""
    model, stage1 = _train(work, "full", seed)
    with work.stopwatch.time("predict"):
        predicted = _predict(model, work)
    return Outcome(predicted, {"stage 1": stage1})


def ensemble(work: Work) -> Outcome:
    """The models of the preset full with three seeds."""
    raise NotImplementedError


def _train(work: Work, preset: str, seed: int) -> tuple[Model, IntArray]:
    """The model, and what the model of the last stage 1 predicts."""
    stage1 = np.empty((0, K), np.int64)

    def keep_stage1(result: EpochResult) -> None:
        nonlocal stage1
        if result.ends_stage and result.progress.stage == 1:
            stage1 = _predict(result.model(), work)

    config = Config(preset=preset, seed=seed, num_threads=work.num_threads)
    with work.stopwatch.time("train"):
        model = train_model(
            work.texts.train, work.folder / "model", config, if_exists="overwrite", on_epoch=keep_stage1
        )
    return model, stage1


def _predict(model: Any, work: Work) -> IntArray:
    """The best labels' ids in the numbering of the training set, [Q, K]."""
    names = model.predict(work.texts.test, K, num_threads=work.num_threads).names
    ids = {name: number for number, name in enumerate(work.texts.train.label_names)}
    predicted = np.full((len(names), K), -1)
    for row, own in enumerate(names):
        predicted[row, : len(own)] = [ids[name] for name in own]
    return predicted
