"""Two processes on a CPU end with the weights of one, and what fails in one ends both."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from elias_idx import Index, Model
from elias_idx.data import read_rows, write_rows
from elias_idx.errors import ConfigError
from elias_idx.train import TrainingSet, distributed, train_model
from elias_idx.train.batch import Batch
from helpers_training import TINY, topic_texts

# The last batch of an epoch has one text, so that one of two processes has none of it.
CONFIG = replace(TINY, batch_size=32, dropout=0.2, stage1_epochs=2, stage2_epochs=2, checkpoint_steps=5)
NUM_TEXTS = 15 * 32 + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a training and a dev set, settings, and the model of one process."""
    folder = tmp_path_factory.mktemp("distributed")
    texts, labels = topic_texts(per_topic=13)
    rows = [{"text": text, "labels": row} for text, row in zip(texts, labels, strict=True)][:NUM_TEXTS]
    write_rows(folder / "train.jsonl", rows)
    write_rows(folder / "dev.jsonl", rows[::5])
    settings = {name: value for name, value in asdict(CONFIG).items() if isinstance(value, (int, float, str))}
    (folder / "tiny.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    train_model(as_set(rows), folder / "alone", CONFIG, dev=as_set(rows[::5]))
    return folder


def as_set(rows):
    return TrainingSet([row["text"] for row in rows], [row["labels"] for row in rows])


def torchrun(folder, out, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "elias_idx", "train"]
    command += [folder / "train.jsonl", "--dev", folder / "dev.jsonl", "--config", folder / "tiny.toml", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*map(str, command), *options], capture_output=True, text=True, env=environment, check=False, timeout=300
    )


def test_two_processes_end_with_the_weights_of_one(folder):
    found = torchrun(folder, folder / "together", "--tensorboard", str(folder / "logs"))
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("stage 1, epoch 1 of 2: loss") == 1
    assert found.stderr.count("<elias_idx.Index") + found.stderr.count("Index(") == 1
    assert len(list((folder / "logs").iterdir())) == 1
    assert not (folder / "together.training").exists()
    one, other = (Index.load(folder / name / "index") for name in ("alone", "together"))
    for name in ("cluster_weights", "cluster_bias", "label_weights", "label_bias"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(other.adjacency.indices, one.adjacency.indices)
    np.testing.assert_allclose(other.adjacency.data, one.adjacency.data, rtol=1e-3, atol=1e-3)
    embeddings = [Model.load(folder / name).encoder.embeddings for name in ("alone", "together")]
    np.testing.assert_allclose(*embeddings, rtol=1e-3, atol=1e-3)


def test_two_processes_train_the_full_preset(folder):
    found = torchrun(folder, folder / "full", "--preset", "full")
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("step 1: dense model of 481 texts") == 1
    assert found.stderr.count("step 3: fusion, fitted on 97 dev texts") == 1
    model = Model.load(folder / "full")
    assert model.index.has_fusion
    rows = list(read_rows(folder / "dev.jsonl"))
    texts, labels = [row.text for row in rows], [row.labels for row in rows]
    assert model.evaluate(texts, labels).metrics["P@1"] > 90
    assert not (folder / "full.training").exists()


def test_an_error_ends_both(folder):
    found = torchrun(folder, folder / "failed", "--label-learning-rate", "1e30")
    assert found.returncode != 0
    assert "lower learning rates" in found.stderr
    assert not (folder / "failed").exists()


def test_several_processes_need_cpus(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="on CPUs only"), distributed.joined("cuda"):
        pass


def test_parts_of_a_batch_are_all_of_it():
    batch = Batch.whole(torch.arange(7), seed=1)
    for count in (1, 2, 3, 9):
        parts = [batch.part(index, count) for index in range(count)]
        assert torch.cat([part.rows for part in parts]).tolist() == list(range(7))
        assert max(len(part.rows) for part in parts) - min(len(part.rows) for part in parts) <= 1
        assert torch.equal(torch.cat([part.uniform(3, "x") for part in parts]), batch.uniform(3, "x"))


def test_a_process_of_its_own_needs_no_others():
    assert (distributed.num_processes(), distributed.is_first(), distributed.total(2.5)) == (1, True, 2.5)
    with pytest.raises(KeyError):
        distributed.from_first(lambda: {}["missing"])
    assert distributed.fair_num_threads(7) == 7
