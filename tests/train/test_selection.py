"""Dev data: the best epoch of each stage is kept, and a stage may end early."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from elias_idx import Index
from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError
from elias_idx.train import Progress, dense, stages, train_model
from elias_idx.train.selection import Selection
from helpers_training import TINY, topic_texts

pytestmark = pytest.mark.usefixtures("checkpoint_every_epoch")

# Three epochs of stage 1, two of stage 2.
METRICS = [50.0, 70.0, 60.0, 80.0, 75.0]


@pytest.fixture(scope="module")
def data():
    return TrainingSet(*topic_texts())


@pytest.fixture(scope="module")
def dev():
    return TrainingSet(*topic_texts(seed=1, per_topic=3))


class Stopped(Exception):
    pass


class Recorder:
    """Remembers each epoch's report and label classifiers; stops after one of the epochs."""

    def __init__(self, stop=None):
        self.results, self.weights, self.stop = [], {}, stop

    def __call__(self, result):
        key = (result.progress.stage, result.progress.epochs_done)
        self.results.append(result)
        self.weights[key] = np.array(result.model().index.label_weights)
        if key == self.stop:
            raise Stopped


def script(monkeypatch, scores):
    """Makes the dev metrics of one epoch after the other those given, whatever the model is."""
    averaged = ("P@1", "P@3", "P@5", "R@10")
    monkeypatch.setattr(Selection, "evaluate", Mock(side_effect=[dict.fromkeys(averaged, score) for score in scores]))


def test_each_stage_goes_on_from_its_best_epoch(data, dev, tmp_path, monkeypatch):
    script(monkeypatch, METRICS)
    start = []

    def remember(trainee, labels):
        start.append(trainee.network.label_classifiers.weight.detach().clone().numpy())
        return approximate_adjacency(trainee, labels)

    approximate_adjacency = dense.approximate_adjacency
    monkeypatch.setattr(dense, "approximate_adjacency", remember)
    epochs = Recorder()
    model = train_model(data, tmp_path / "model", TINY, dev=dev, on_epoch=epochs)
    assert np.array_equal(start[0], epochs.weights[1, 2])
    assert np.array_equal(model.index.label_weights, epochs.weights[2, 1])
    assert [result.best_epoch for result in epochs.results] == [1, 2, 2, 1, 1]
    assert [result.ends_stage for result in epochs.results] == [False, False, True, False, True]


def test_the_best_epoch_may_be_an_average(data, dev, tmp_path, monkeypatch):
    config = replace(TINY, stage2_epochs=3, averaged_epochs=3)
    outs = tmp_path / "undisturbed", tmp_path / "model"
    epochs = Recorder()
    for out in outs:
        script(monkeypatch, [50.0, 70.0, 60.0, 75.0, 80.0, 78.0])
        if out == outs[1]:
            with pytest.raises(Stopped):
                train_model(data, out, config, dev=dev, on_epoch=Recorder((2, 2)))
        train_model(data, out, config, dev=dev, if_exists="resume", on_epoch=epochs if out == outs[0] else None)
    one, other = (Index.load(out / "index") for out in outs)
    assert np.array_equal(one.label_weights, epochs.weights[2, 2])
    assert np.array_equal(other.label_weights, epochs.weights[2, 2])


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("stop", [(1, 2), (1, 3), (2, 1), (2, 2)])
def test_the_best_epoch_survives_an_interruption(data, dev, tmp_path, monkeypatch, stop, seconds):
    monkeypatch.setattr(stages, "CHECKPOINT_SECONDS", seconds)
    outs = tmp_path / "undisturbed", tmp_path / "model"
    for out in outs:
        script(monkeypatch, METRICS)
        if out == outs[1]:
            with pytest.raises(Stopped):
                train_model(data, out, TINY, dev=dev, on_epoch=Recorder(stop))
            if seconds:
                script(monkeypatch, METRICS)
        train_model(data, out, TINY, dev=dev, if_exists="resume")
    one, other = (Index.load(out / "index") for out in outs)
    assert np.array_equal(one.label_weights, other.label_weights)
    assert np.array_equal(one.adjacency.data, other.adjacency.data)


@pytest.mark.parametrize(
    ("patience", "expected"),
    [(1, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]), (2, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3)])],
)
def test_a_stage_ends_when_no_epoch_was_better_for_some_time(data, dev, tmp_path, monkeypatch, patience, expected):
    scores = {1: [50.0, 60.0, 60.0, 70.0, 69.0], 2: [50.0, 60.0, 60.0, 55.0, 70.0, 69.0, 68.0]}
    script(monkeypatch, scores[patience])
    config = replace(TINY, stage1_epochs=20, stage2_epochs=20, early_stopping=patience)
    epochs = Recorder()
    train_model(data, tmp_path / "model", config, dev=dev, on_epoch=epochs)
    assert [(result.progress.stage, result.progress.epochs_done) for result in epochs.results] == expected
    assert [result.ends_stage for result in epochs.results].count(True) == 2


def test_the_best_epoch_is_that_of_the_mean_unless_a_metric_is_given():
    names = ("P@1", "P@3", "P@5", "R@10")
    figures = [(50, 30, 20, 60), (49, 32, 20, 63), (50, 30, 20, 61)]
    epochs = [Progress(1, at, 1.0, dict(zip(names, values, strict=True))) for at, values in enumerate(figures, 1)]
    dev = TrainingSet(["a text"], [["label"]])
    for metric, best in (("mean", 2), ("P@1", 1), ("R@10", 2)):
        assert Selection.check(Config(dev_metric=metric), dev, dev).best(epochs).epochs_done == best


def test_the_metrics_are_the_model_s_on_the_dev_data(data, dev, tmp_path):
    results = []

    def compare(result):
        expected = result.model().evaluate(dev.inputs, dev.labels, label_names=dev.label_names, ks=(1, 2, 3, 5)).metrics
        results.append(result.progress)
        assert result.progress.metrics == expected
        assert "PSP@2" in expected

    train_model(data, tmp_path / "model", replace(TINY, dev_metric="PSP@2"), dev=dev, on_epoch=compare)
    assert results == [Progress(1, 1), Progress(1, 2), Progress(1, 3), Progress(2, 1), Progress(2, 2)]


def test_recall_at_any_k(data, dev, tmp_path):
    seen = []
    config = replace(TINY, dev_metric="R@7", stage1_epochs=1, stage2_epochs=0)
    train_model(data, tmp_path / "model", config, dev=dev, on_epoch=lambda result: seen.append(result.progress.metrics))
    assert {"R@7", "R@10", "R@100", "P@1"} <= seen[0].keys()


@pytest.mark.parametrize("metric", ["P", "P@0", "p@1", "P@1.5", "F1@3", "", "P@-1", "P@1 "])
def test_unknown_metrics_are_refused_before_any_work(metric):
    with pytest.raises(ConfigError, match="dev_metric must be"):
        replace(TINY, dev_metric=metric)


def test_an_early_end_needs_dev_data(data, tmp_path):
    with pytest.raises(ConfigError, match="give dev data"):
        train_model(data, tmp_path / "model", replace(TINY, early_stopping=1))


def test_dev_inputs_must_be_of_the_same_kind(data, tmp_path):
    dev = TrainingSet(np.ones((2, 3), np.float32), [["t0"], ["t1"]])
    with pytest.raises(ConfigError, match="the training inputs are texts, but the dev inputs embeddings of size 3"):
        train_model(data, tmp_path / "model", TINY, dev=dev)


def test_other_dev_data_are_another_run(data, dev, tmp_path):
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", TINY, dev=dev, on_epoch=Recorder((1, 1)))
    with pytest.raises(ConfigError, match="other values of dev_data"):
        train_model(data, tmp_path / "model", TINY, if_exists="resume")
