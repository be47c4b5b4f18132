"""Calibration: scores become probabilities, which survive with the model."""

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from elias_idx import Ensemble, Index, Model
from elias_idx.calibration import Calibration, ScoredPairs, cross_calibrated, reliability
from elias_idx.cli.calibrate import calibrate
from elias_idx.cli.commands import cli
from elias_idx.data import TrainingSet, write_rows
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.files import save_tensors
from elias_idx.train import train_model
from helpers_training import TINY, topic_texts

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)
# Some labels are missing, so that good scores are sometimes wrong.
OTHER_TEXTS, COMPLETE = topic_texts(num_topics=12, per_topic=8, seed=1)
OTHERS = [row if number % 3 else row[1:] for number, row in enumerate(COMPLETE)]
DEV = TrainingSet(OTHER_TEXTS, OTHERS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    train_model(TrainingSet(TEXTS, LABELS), path, TINY)
    return path


@pytest.fixture(scope="module")
def model(saved):
    return Model.load(saved)


@pytest.fixture(scope="module")
def calibrated(model):
    return model.calibrate(DEV)


def pool_adjacent_violators(scores, relevances):
    """Isotonic regression in its plainest form: [P] values in the order of the scores."""
    blocks = []
    for score in sorted(set(scores)):
        same = [value for other, value in zip(scores, relevances, strict=True) if other == score]
        blocks.append([sum(same), len(same), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            blocks[-2:] = [[sum(pair) for pair in zip(*blocks[-2:], strict=True)]]
    return [total / count for total, count, scores in blocks for _ in range(scores)]


@given(st.lists(st.tuples(st.integers(0, 10), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=40))
def test_fitted_is_isotonic_regression(pairs):
    scores, relevances = (np.array(part, np.float32) for part in zip(*pairs, strict=True))
    scores /= 10
    fitted = Calibration.fit(scores, relevances)
    expected = pool_adjacent_violators(scores.tolist(), relevances.tolist())
    assert fitted(np.unique(scores)) == pytest.approx(expected, abs=1e-5)
    everywhere = fitted(np.linspace(0, 1, 101, dtype=np.float32))
    assert (np.diff(everywhere) >= 0).all()
    assert everywhere.dtype == np.float32


def test_pairs_are_the_best_labels_and_whether_they_are_right(model):
    pairs = model.scored_pairs(DEV)
    found = model.predict(OTHER_TEXTS, 100)
    assert pairs.scores.tolist() == [score for row in found.scores for score in row]
    right = [name in OTHERS[number] for number, row in enumerate(found.names) for name in row]
    assert pairs.relevances.tolist() == right
    assert pairs.texts.tolist() == [number for number, row in enumerate(found.names) for _ in row]
    assert pairs.ranks.tolist() == [rank for row in found.names for rank in range(len(row))]


def test_predictions_are_probabilities_in_the_same_order(model, calibrated):
    plain, found = model.predict(OTHER_TEXTS, 5), calibrated.predict(OTHER_TEXTS, 5, calibrated=True)
    assert found.names == plain.names
    assert np.array(found.scores, np.float32) == pytest.approx(
        calibrated.calibration(np.array(plain.scores, np.float32))
    )
    assert calibrated.predict(OTHER_TEXTS, 5) == plain
    pairs = model.scored_pairs(DEV)
    assert reliability(calibrated.calibration(pairs.scores), pairs.relevances).error < 0.02
    assert reliability(pairs.scores, pairs.relevances).error > 0.02


def test_the_least_score_is_a_probability(calibrated):
    every = calibrated.predict(OTHER_TEXTS, 100, calibrated=True)
    best = calibrated.predict(OTHER_TEXTS, 100, calibrated=True, min_score=0.6)
    assert best.scores == [[score for score in row if score >= 0.6] for row in every.scores]
    assert 0 < sum(map(len, best.scores)) < sum(map(len, every.scores))


def test_it_survives_with_the_model(calibrated, tmp_path):
    calibrated.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.has_calibration
    loaded.verify()
    expected = calibrated.predict(OTHER_TEXTS, 5, calibrated=True)
    assert loaded.predict(OTHER_TEXTS, 5, calibrated=True) == expected
    assert loaded.quantize("int8", path=tmp_path / "int8").has_calibration
    # It counts as a part of the model: such a folder can be replaced, and the file goes.
    loaded.with_calibration(None).save(tmp_path / "model", overwrite=True)
    assert not Model.load(tmp_path / "model").has_calibration


def test_ensembles_have_their_own(calibrated, saved, tmp_path):
    plain = Ensemble([calibrated, Model.load(saved)])
    assert not plain.has_calibration
    fitted = plain.calibrate(DEV)
    assert not plain.has_calibration
    fitted.save(tmp_path / "ensemble")
    loaded = Model.load(tmp_path / "ensemble")
    loaded.verify()
    expected = fitted.predict(OTHER_TEXTS, 3, calibrated=True)
    assert loaded.predict(OTHER_TEXTS, 3, calibrated=True) == expected
    assert fitted.quantize("int8").has_calibration


def test_without_a_calibration_there_are_no_probabilities(model, calibrated, monkeypatch):
    with pytest.raises(ConfigError, match="has no calibration: make one with calibrate"):
        model.predict(OTHER_TEXTS, calibrated=True)
    calibrated.predict(OTHER_TEXTS, calibrated=True, fusion=False)
    monkeypatch.setattr(Index, "has_fusion", True)
    with pytest.raises(ConfigError, match="that of the fusion's scores"):
        calibrated.predict(OTHER_TEXTS, calibrated=True, fusion=False)


def test_labels_that_the_model_does_not_know(model):
    with pytest.raises(DataError, match="knows none of these texts' labels"):
        model.calibrate(TrainingSet(["topic1x"], [["new"]]))
    # They are missed, which calibration can't see: it is about labels that are found.
    more = TrainingSet(OTHER_TEXTS, [[*row, "new"] for row in OTHERS])
    assert (model.calibrate(more).calibration.scores == model.calibrate(DEV).calibration.scores).all()


@pytest.mark.parametrize(
    "tensors",
    [
        {"scores": [0.1]},
        {"scores": [0.1, 0.2], "probabilities": [0.1]},
        {"scores": [0.2, 0.1], "probabilities": [0.1, 0.2]},
        {"scores": [0.1, 0.2], "probabilities": [0.2, 0.1]},
        {"scores": [0.1, 0.2], "probabilities": [0.2, 1.5]},
        {"scores": [0.1, np.nan], "probabilities": [0.2, 0.3]},
        {"scores": [], "probabilities": []},
    ],
)
def test_damaged_files_are_told(saved, tmp_path, tensors):
    copy = shutil.copytree(saved, tmp_path / "copy")
    arrays = {name: np.array(values, np.float32) for name, values in tensors.items()}
    save_tensors(copy / "calibration.safetensors", arrays)
    with pytest.raises(FormatError, match="no map of scores to probabilities"):
        Model.load(copy)


def test_reliability_by_hand():
    found = reliability(np.array([0.0, 0.04, 0.9, 1.0], np.float32), np.array([0, 1, 1, 0], np.float32), 10)
    assert found.counts.tolist() == [2, 2]
    assert found.probabilities == pytest.approx([0.02, 0.95])
    assert found.relevances == pytest.approx([0.5, 0.5])
    assert found.error == pytest.approx((0.48 + 0.45) / 2)


def test_each_text_is_judged_by_others():
    texts = np.repeat(np.arange(10), 2)
    scores = np.tile(np.array([0.2, 0.8], np.float32), 10)
    # One text is the opposite of all others, which its own probabilities must not show.
    relevances = np.tile(np.array([0, 1], np.float32), 10)
    relevances[6:8] = 1, 0
    found = cross_calibrated(ScoredPairs(texts, np.tile([0, 1], 10), scores, relevances))
    assert found[6:8].tolist() == [0, 1]
    assert found[:2] == pytest.approx([1 / 8, 7 / 8])
    with pytest.raises(DataError, match="a single text"):
        cross_calibrated(ScoredPairs(texts[:2], np.arange(2), scores[:2], relevances[:2]))


def test_the_command_calibrates_in_place_and_draws(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    dev = tmp_path / "dev.jsonl"
    write_rows(dev, ({"text": text, "labels": row} for text, row in zip(OTHER_TEXTS, OTHERS, strict=True)))
    args = [str(copy), str(dev), "--plot"]
    refused = CliRunner().invoke(calibrate, [*args, str(tmp_path / "plot.doc")])
    assert refused.exit_code != 0
    assert "must end in .svg" in refused.output
    result = CliRunner().invoke(calibrate, [*args, str(tmp_path / "plot.svg")], catch_exceptions=False)
    before, after = map(float, re.findall(r"([\d.]+) %", result.output))
    assert after < before
    assert "share of right labels" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert Model.load(copy).has_calibration
    out = str(tmp_path / "out")
    for expected in (0, 1):  # the second time there is something
        assert CliRunner().invoke(calibrate, [*args[:2], "--out", out]).exit_code == expected
    assert Model.load(out).has_calibration


def test_the_commands_know_calibrations(saved, calibrated, tmp_path):
    calibrated.save(tmp_path / "calibrated")
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, ({"text": text} for text in OTHER_TEXTS[:9]))
    args = [str(tmp_path / "calibrated"), str(rows), "--out", "-", "--k", "3", "--calibrated"]
    result = CliRunner().invoke(cli, ["predict", *args], catch_exceptions=False)
    scores = [json.loads(line)["scores"] for line in result.stdout.splitlines()]
    assert scores == calibrated.predict(OTHER_TEXTS[:9], 3, calibrated=True).scores
    for model, answer in [(saved, "no"), (tmp_path / "calibrated", "yes")]:
        shown = CliRunner().invoke(cli, ["info", str(model)], catch_exceptions=False).output
        assert re.search(r"^calibrated  (\w+)", shown, re.MULTILINE)[1] == answer
