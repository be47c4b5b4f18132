"""The demo's steps on a small tabular list: what is up to date is used again, what was interrupted goes on."""

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest

from elias_idx.data import Row
from elias_idx.demo import icd10cm, run
from elias_idx.errors import MissingExtraError
from elias_idx.model import Model
from helpers_training import TINY, topic_texts


@pytest.fixture(autouse=True)
def small_list(monkeypatch):
    def rows(seed):
        return [Row(text, labels) for text, labels in zip(*topic_texts(seed=seed), strict=True)]

    train, test = rows(0), rows(1)
    names = {label: f"about {label}" for row in train for label in row.labels}
    monkeypatch.setattr(icd10cm, "load", lambda: icd10cm.Icd10Cm(train, test, names))
    monkeypatch.setattr(icd10cm, "installed_version", lambda: "1.0")
    monkeypatch.setattr(run, "_SEARCH_SECONDS", 0.01)


def test_the_report_says_how_it_went(tmp_path, capsys):
    report = run.run_demo(tmp_path / "demo", TINY)
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["metrics"]["final"]["P@1"] > 80
    for metrics in report["metrics"].values():
        assert metrics.keys() == {"P@1", "P@3", "P@5", "R@10", "R@100"}
    assert {"data", "train", "load", "encode", "search"} == report["seconds"].keys()
    assert report["queries_per_second"] > 0
    output = capsys.readouterr().out
    assert "stage 1" in output
    assert "about t0" in output


def test_a_second_run_uses_what_is_there(tmp_path, capsys):
    first = run.run_demo(tmp_path / "demo", TINY)
    before = (tmp_path / "demo" / "model" / "model.json").stat().st_mtime_ns
    second = run.run_demo(tmp_path / "demo", TINY)
    assert "up to date" in capsys.readouterr().out
    assert (tmp_path / "demo" / "model" / "model.json").stat().st_mtime_ns == before
    assert second["metrics"] == first["metrics"]
    assert second["seconds"]["train"] == first["seconds"]["train"]


def test_other_settings_train_again(tmp_path):
    run.run_demo(tmp_path / "demo", TINY)
    run.run_demo(tmp_path / "demo", replace(TINY, seed=5))
    assert Model.load(tmp_path / "demo" / "model").settings["seed"] == 5


MISSING = ["data/test.jsonl", "data/source.json", "report.json", "training.json", "model/model.json"]


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_made_again(tmp_path, name):
    report = run.run_demo(tmp_path / "demo", TINY)
    (tmp_path / "demo" / name).unlink()
    if name == "model/model.json":
        (tmp_path / "demo" / "model").rename(tmp_path / "elsewhere")
    assert run.run_demo(tmp_path / "demo", TINY)["metrics"] == report["metrics"]


def test_an_interrupted_run_goes_on_and_evaluates_stage_1(tmp_path, monkeypatch):
    undisturbed = run.run_demo(tmp_path / "undisturbed", TINY)
    evaluate = Model.evaluate

    monkeypatch.setattr(Model, "evaluate", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.run_demo(tmp_path / "demo", TINY)
    monkeypatch.setattr(Model, "evaluate", evaluate)
    report = run.run_demo(tmp_path / "demo", TINY)
    assert report["metrics"] == undisturbed["metrics"]


def test_without_its_package_the_demo_says_what_to_install(monkeypatch):
    monkeypatch.undo()

    def missing(name):
        raise icd10cm.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(icd10cm.metadata, "version", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'elias_idx\[demo\]'"):
        icd10cm.installed_version()
