"""Sharing models: folders with cards, and uploads to a Hub that is a folder here."""

import fnmatch
import re
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest

from elias_idx import Ensemble, Model
from elias_idx.config import Config
from elias_idx.errors import FormatError
from elias_idx.train import TrainingSet, train_model
from helpers_training import TINY, topic_texts

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    data = TrainingSet(TEXTS, LABELS)
    return train_model(data, tmp_path_factory.mktemp("model") / "model", TINY, dev=data.subset(np.arange(20)))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder with a repository each; what the Hub is asked besides is in `calls`."""
    root, calls = tmp_path / "hub", []

    def create_repo(_, repo_id, **options):
        calls.append(options)
        (root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(_, *, repo_id, folder_path, delete_patterns, **options):
        calls.append(options)
        for path in [path for path in (root / repo_id).rglob("*") if path.is_file()]:
            if any(fnmatch.fnmatch(path.relative_to(root / repo_id).as_posix(), one) for one in delete_patterns):
                path.unlink()
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"hub/{repo_id}/commit")

    def snapshot_download(repo_id, *, allow_patterns, **options):
        huggingface_hub.utils.validate_repo_id(repo_id)
        calls.append(options)
        copy = tmp_path / "cache" / repo_id
        for path in (root / repo_id).rglob("*"):
            name = path.relative_to(root / repo_id).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, one) for one in allow_patterns):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                # The Hub's cache links to its files, too.
                (copy / name).symlink_to(path)
        return str(copy)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(root=root, calls=calls)


def test_a_folder_comes_back(model, tmp_path):
    model.save_pretrained(tmp_path / "shared")
    loaded = Model.from_pretrained(tmp_path / "shared")
    loaded.verify()
    assert loaded.predict(TEXTS, 3) == model.predict(TEXTS, 3)
    with pytest.raises(FileExistsError):
        model.save_pretrained(tmp_path / "shared")
    model.save_pretrained(tmp_path / "shared", repo_id="me/topics", overwrite=True)
    assert "# me/topics" in (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_the_model_is(model, tmp_path):
    model.calibrate(TrainingSet(TEXTS, LABELS)).save_pretrained(tmp_path / "topics")
    card = huggingface_hub.ModelCard.load(tmp_path / "topics" / "README.md")
    assert card.data.to_dict()["library_name"] == "elias_idx"
    assert card.data.pipeline_tag == "text-classification"
    assert "out of 14 labels for texts" in card.text
    assert "| rows | 96 |" in card.text
    assert "| labels a row | 2.00 |" in card.text
    assert f"| 0 | {model.report['metrics']['P@1']:.2f} |" in card.text
    assert '"stage1_epochs": 3' in card.text
    total = sum(path.stat().st_size for path in (tmp_path / "topics").rglob("*.*") if path.name != "README.md")
    assert f"| total | {total / 2**20:.1f} MiB |" in card.text
    assert "calibrated=True" in card.text


def test_the_cards_code_runs(model, tmp_path, monkeypatch, capsys):
    model.save_pretrained(tmp_path / "texts")
    embeddings = model.encode(TEXTS)
    dense = Config(preset="fast", encoder="precomputed", num_clusters=2, stage1_epochs=1, stage2_epochs=0)
    train_model(TrainingSet(embeddings, LABELS), tmp_path / "dense", dense).save_pretrained(tmp_path / "vectors")
    monkeypatch.chdir(tmp_path)
    for name in ("texts", "vectors"):
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        exec(re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1), {})
        assert "group" in capsys.readouterr().out
    assert "None were taken" in card
    assert "pipeline_tag" not in card


def test_a_pushed_model_is_pulled(model, hub):
    url = model.push_to_hub("me/topics", private=True, commit_message="First", token="secret")
    assert url == "hub/me/topics/commit"
    assert hub.calls[0] == {"private": True, "exist_ok": True}
    assert hub.calls[1] == {"revision": None, "commit_message": "First", "create_pr": False}
    (hub.root / "me/topics/run.py").write_text("not for us", encoding="utf-8")
    loaded = Model.from_pretrained("me/topics", revision="v1")
    assert hub.calls[2]["revision"] == "v1"
    assert not (loaded.path / "run.py").exists()
    assert loaded.predict(TEXTS, 3) == model.predict(TEXTS, 3)
    assert "from_pretrained('me/topics')" in (hub.root / "me/topics/README.md").read_text(encoding="utf-8")


def test_nothing_is_left_of_a_model_that_was_there(model, hub, tmp_path):
    ensemble = Ensemble([model, model]).calibrate(TrainingSet(TEXTS, LABELS))
    ensemble.push_to_hub("me/topics")
    loaded = Model.from_pretrained("me/topics")
    assert isinstance(loaded, Ensemble)
    assert loaded.has_calibration
    assert "an ensemble of 2 models" in (hub.root / "me/topics/README.md").read_text(encoding="utf-8")
    model.push_to_hub("me/topics")
    shutil.rmtree(tmp_path / "cache")
    loaded = Model.from_pretrained("me/topics")
    assert isinstance(loaded, Model)
    assert not loaded.has_calibration
    assert not any(path.is_file() for path in (hub.root / "me/topics/members").rglob("*"))


@pytest.mark.usefixtures("hub")
def test_names_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder, and can't be a repository's name"):
        Model.from_pretrained(tmp_path / "missing" / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="is no model"):
        Model.from_pretrained(tmp_path / "empty")
