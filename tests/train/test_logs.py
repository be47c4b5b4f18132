"""TensorBoard's event files, read by its own reader."""

import sys
from dataclasses import replace

import pytest

from elias_idx.data import TrainingSet
from elias_idx.errors import MissingExtraError
from elias_idx.train import train_model
from elias_idx.train.logs import TrainingLog
from helpers_training import TINY, topic_texts

CONFIG = replace(TINY, stage1_epochs=2, stage2_epochs=1, checkpoint_steps=4)
# 480 texts in batches of 32.
STEPS_PER_EPOCH = 15


@pytest.fixture(scope="module")
def data():
    return TrainingSet(*topic_texts())


def scalars(folder):
    """Tag → its (step, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_step_and_the_dev_metrics_are_logged(data, tmp_path):
    losses = []
    dev = TrainingSet(*topic_texts(seed=1, per_topic=2))

    def remember(result):
        losses.append((result.progress.loss, result.progress.metrics))

    train_model(data, tmp_path / "model", CONFIG, dev=dev, log_dir=tmp_path / "logs", on_epoch=remember)
    found = scalars(tmp_path / "logs")
    assert {"train/loss", "train/learning_rate", "train/seconds_per_step", "dev/P@1", "dev/R@100"} <= found.keys()
    assert [step for step, _ in found["train/loss"]] == list(range(3 * STEPS_PER_EPOCH))
    for epoch, (loss, metrics) in enumerate(losses):
        values = [value for _, value in found["train/loss"]][epoch * STEPS_PER_EPOCH : (epoch + 1) * STEPS_PER_EPOCH]
        assert sum(values) / STEPS_PER_EPOCH == pytest.approx(loss, rel=1e-5)
        assert found["dev/P@1"][epoch] == ((epoch + 1) * STEPS_PER_EPOCH - 1, pytest.approx(metrics["P@1"]))
    assert max(value for _, value in found["train/learning_rate"]) == pytest.approx(TINY.label_learning_rate)
    assert all(value > 0 for _, value in found["train/seconds_per_step"])


def test_a_resumed_run_goes_on_with_the_same_steps(data, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    log_step = TrainingLog.step

    def stop(self, step, loss, learning_rate):
        log_step(self, step, loss, learning_rate)
        if step == STEPS_PER_EPOCH + 6:
            raise Stopped

    monkeypatch.setattr(TrainingLog, "step", stop)
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", CONFIG, log_dir=tmp_path / "logs")
    monkeypatch.setattr(TrainingLog, "step", log_step)
    train_model(data, tmp_path / "model", CONFIG, log_dir=tmp_path / "logs", if_exists="resume")
    train_model(data, tmp_path / "other", CONFIG, log_dir=tmp_path / "undisturbed")
    found, expected = scalars(tmp_path / "logs"), scalars(tmp_path / "undisturbed")
    for tag in ("train/loss", "train/learning_rate"):
        assert found[tag] == expected[tag]


def test_without_the_package_the_extra_is_named_before_any_work(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'elias_idx\[tensorboard\]'"):
        train_model(data, tmp_path / "model", CONFIG, log_dir=tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []
