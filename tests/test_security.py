"""Opening what others made runs none of their code and touches no other files; SECURITY.md says what is promised."""

import ast
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elias_idx
from elias_idx import FormatError, Index, Model
from elias_idx.config import Config
from elias_idx.data import TrainingSet, read_training_set
from elias_idx.encoders import pretrained
from elias_idx.errors import ConfigError, EliasIdxError
from elias_idx.files import is_plain_path
from elias_idx.score.manifest import Manifest
from elias_idx.train import train_model
from elias_idx.train.encoders import build_encoder
from helpers_training import NGRAMS, TINY, topic_texts
from helpers_transformer import save_tiny_transformer

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=6)
OUTSIDE = ["", ".", "a\0b", "../x", "a/../../x", "/etc/hostname", "..", "..\\x", "C:\\x", "\\\\host\\x", "C:x"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with everything that one can have."""
    path = tmp_path_factory.mktemp("model") / "model"
    config = Config(**{**vars(TINY), "preset": "full", "num_candidates": 10})
    model = train_model(TrainingSet(TEXTS * 4, LABELS * 4), path, config)
    model.calibrate(TrainingSet(TEXTS, LABELS)).save(path, overwrite=True)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    Model.load(saved).save(tmp_path / "model")
    return tmp_path / "model"


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


# What could run code.

_NEVER = {
    "eval", "exec", "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "tarfile", "zipfile",
    "unpack_archive", "subprocess", "system", "popen", "torch.hub", "runpy", "ctypes",
}  # fmt: skip


def test_the_sources_use_nothing_that_runs_what_it_reads() -> None:
    for path in Path(elias_idx.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = {getattr(node, "module", None), *(alias.name for alias in node.names)}
                assert not modules & _NEVER, where
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in _NEVER, where
                assert called.rpartition(".")[2] not in {"system", "popen", "unpack_archive"}, where
                if called == "torch.load":
                    assert options["weights_only"] == "True", where
                assert options.get("allow_pickle", "False") == "False", where
                assert options.get("trust_remote_code", "False") == "False", where


def test_pickles_in_place_of_any_file_are_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    content = pickle.dumps(Trap(ran))
    pickle.loads(content)
    assert ran.exists()  # the trap works
    ran.unlink()
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]:
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            with pytest.raises(EliasIdxError):
                Model.load(folder).verify()
        finally:
            path.write_bytes(before)
    Model.load(folder).verify()
    assert not ran.exists()


def test_code_beside_a_model_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    for place in (folder, folder / "encoder", folder / "index"):
        for name in ("__init__.py", "modeling_own.py", "sitecustomize.py", "numpy.py", "safetensors.py"):
            (place / name).write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.chdir(folder)
    Model.load(folder).predict(TEXTS[:2])
    Index.load(folder / "index").verify()
    assert not ran.exists()


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "txt", "jsonl.gz", "jsonl.xz"])
def test_pickles_as_data_are_refused(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"rows.{ending}").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(EliasIdxError):
        read_training_set(tmp_path / f"rows.{ending}")
    assert not (tmp_path / "ran").exists()


def test_arrays_of_objects_are_refused_as_embeddings(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([Trap(tmp_path / "ran")]), allow_pickle=True)
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "labels": ["b"]}\n')
    with pytest.raises(EliasIdxError):
        read_training_set(tmp_path / "rows.jsonl", embeddings=tmp_path / "rows.npy")
    assert not (tmp_path / "ran").exists()


# Names of files.


@pytest.mark.parametrize("name", OUTSIDE)
def test_descriptions_name_no_files_outside(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("")
    content = json.loads((folder / "model.json").read_text())
    content["sha256"] = {name: "0"}
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="is no file within the folder"):
        Model.load(folder).verify()


@pytest.mark.parametrize("name", OUTSIDE)
def test_manifests_of_jobs_name_no_files_outside(tmp_path: Path, name: str) -> None:
    part = {"file": name, "rows": 1, "null_rows": 0, "sha256": "", "end": [0, 0]}
    job = {"model": "m", "fingerprint": "", "options": {}, "inputs": [], "parts": [part], "finished": True}
    content = {"format": "elias_idx_scores", "format_version": 1, **job}
    (tmp_path / "_manifest.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="is no file within the folder"):
        Manifest.load(tmp_path)


def test_names_within_a_folder_are_plain() -> None:
    assert all(map(is_plain_path, ["a", "a/b.json", "a.b", "..a", "encoder/x..y"]))
    assert not any(map(is_plain_path, [*OUTSIDE, None, 3]))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_replacing_a_model_changes_nothing_that_its_folder_links_to(folder: Path, tmp_path: Path) -> None:
    model = Model.load(folder)
    (folder / "encoder").rename(tmp_path / "elsewhere")
    (folder / "encoder").symlink_to(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    assert Model.load(folder).predict(TEXTS[:2]) == model.predict(TEXTS[:2])
    model.with_defaults(beam_size=3).save(folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    assert not (folder / "encoder").is_symlink()


# Encoders of Hugging Face.


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    return Path(save_tiny_transformer(tmp_path / "bert", ["viral"]))


def refused(folder: Path, message: str) -> None:
    config = Config(encoder="transformer", transformer=str(folder), max_tokens=20, dim=8, **NGRAMS)
    with pytest.raises(ConfigError, match=message):
        build_encoder(config, TEXTS[:4])


def test_attention_by_code_of_a_repository_is_refused(transformer: Path) -> None:
    settings = json.loads((transformer / "config.json").read_text())
    for name in ("attn_implementation", "_attn_implementation"):
        for kernel in (
            "someone/kernel",
            "kernels-community/flash-attn2",
            "paged|someone/kernel@main:run",
            "flash_attention_2",
        ):
            (transformer / "config.json").write_text(json.dumps({**settings, name: kernel}))
            refused(transformer, "which is code from elsewhere")


def test_attention_of_parts_within_parts_is_checked(transformer: Path) -> None:
    kernels = {"thinker_config": {"text_config": "flash_attention_2"}}
    settings = {"model_type": "qwen2_5_omni", "attn_implementation": kernels}
    (transformer / "config.json").write_text(json.dumps(settings))
    refused(transformer, "wants attention by 'flash_attention_2', which is code from elsewhere")


def test_the_config_that_was_checked_is_the_one_that_is_used(
    transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = transformer / "config.json"
    settings = json.loads(file.read_text())
    check = pretrained._check_attention

    def check_and_change(config: Any) -> None:
        check(config)
        file.write_text(json.dumps({**settings, "layer_norm_eps": 0.5}))

    monkeypatch.setattr(pretrained, "_check_attention", check_and_change)
    model, _ = pretrained.load_pretrained(str(transformer))
    assert model.config.layer_norm_eps == settings["layer_norm_eps"]


def test_adapters_which_name_another_model_are_refused(transformer: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "someone/model"}
    (transformer / "adapter_config.json").write_text(json.dumps(adapter))
    refused(transformer, "is an adapter to another model")


@pytest.mark.parametrize("name", [*OUTSIDE, "../part.safetensors", "part.bin"])
def test_parts_of_weights_lie_within_the_folder(transformer: Path, name: str) -> None:
    (transformer / "model.safetensors").rename(transformer / "part.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": name}}
    (transformer / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(transformer, "no safetensors file within the folder")


def test_damaged_lists_of_parts_are_refused(transformer: Path) -> None:
    for content in ("{", "[]", '{"weight_map": 3}'):
        (transformer / "model.safetensors.index.json").write_text(content)
        refused(transformer, "index.json is damaged")


# The Hub.


def test_only_data_is_downloaded_of_the_revision_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    commit = "0123456789abcdef0123456789abcdef01234567"
    Model.from_pretrained("someone/model", revision=commit)
    assert asked["allow_patterns"] == ["*.json", "*.safetensors"]
    assert (asked["repo_id"], asked["revision"]) == ("someone/model", commit)
