"""The memory account: counted from shapes, and what does not fit is refused before any work."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import BertModel

from elias_idx.config import Config
from elias_idx.errors import ConfigError
from elias_idx.train import TrainingSet, dry_run, memory, model_sizes, train_model
from elias_idx.train.encoders import build_encoder
from elias_idx.train.memory import memory_account
from elias_idx.train.memory_parts import PHASES, embedding_dim
from elias_idx.train.model_sizes import ModelSizes, TransformerSizes, sizes_of
from helpers_training import TINY, topic_features, topic_texts
from helpers_transformer import save_tiny_transformer

SIZES = ModelSizes(num_texts=10_000, num_labels=5_000, num_pairs=30_000, num_features=40_000, num_entries=900_000)


def part(config, sizes, name):
    return sum(part.num_bytes for part in memory_account(config, sizes).parts if part.name == name)


def test_tables_take_what_their_shapes_say():
    config = Config(dim=100)
    assert part(config, SIZES, "label classifiers") == 5_000 * (100 * 4 + 4)
    assert part(config, SIZES, "label classifiers' momentum") == 5_000 * (100 * 4 + 4)
    assert part(config, SIZES, "encoder's table, momentum, second moment") == 40_000 * (2 * 100 * 4 + 4)
    averaged = part(replace(config, averaged_epochs=2, num_clusters=64), SIZES, "averaged weights")
    assert averaged == 40_000 * 400 + 64 * 400 + 5_000 * 404
    assert part(config, SIZES, "averaged weights") == 0
    assert part(replace(config, label_dim=30), SIZES, "label classifiers") == 5_000 * (30 * 4 + 4)
    assert part(replace(config, label_dtype="bfloat16"), SIZES, "label classifiers") == 5_000 * (100 * 2 + 4)


def test_the_peak_is_that_of_the_largest_phase():
    account = memory_account(Config(), SIZES)
    phases = [account.held(phase, on_device=False) for phase in PHASES]
    assert account.peak() == max(phases)
    assert account.peak() <= sum(part.num_bytes for part in account.parts)
    assert account.held("stage 1", on_device=True) == 0


def test_a_device_of_its_own_is_counted_apart():
    account = memory_account(Config(preset="fast", device="cuda"), SIZES)
    assert account.peak(on_device=True) >= 2 * 5_000 * 512 * 4 + 2 * 40_000 * 512 * 4
    assert account.peak() < memory_account(Config(preset="fast"), SIZES).peak()
    assert any("at most on cuda" in line for line in account.lines())


def test_embeddings_and_transformers_set_the_size():
    base = TransformerSizes(num_parameters=110_000_000, num_layers=12, hidden_size=768, num_heads=12)
    texts = ModelSizes(10_000, 5_000, 30_000, text_bytes=1_000_000, transformer=base)
    tuned = Config(encoder="transformer", transformer="bert", batch_size=32, dim=512)
    assert embedding_dim(tuned, texts) == 768
    assert embedding_dim(replace(tuned, encoder="bag+transformer"), texts) == 768 + 512
    assert embedding_dim(Config(encoder="precomputed"), replace(SIZES, input_dim=50)) == 50
    # 34 · hidden + 5 · heads · length numbers a token and layer, here of 4 bytes.
    layer = 32 * 128 * 2 * (34 * 768 + 5 * 12 * 128)
    assert base.activation_bytes(32 * 128, 128, tuned) == 12 * layer
    assert base.activation_bytes(32 * 128, 128, replace(tuned, precision="bfloat16")) == 6 * layer
    recomputed = base.activation_bytes(32 * 128, 128, replace(tuned, gradient_checkpointing=True))
    # A CPU computes 1024 tokens at once.
    assert recomputed == 12 * layer // 4
    for setting in ({"frozen": True}, {"gradient_checkpointing": True}, {"precision": "bfloat16"}):
        assert memory_account(replace(tuned, **setting), texts).peak() < memory_account(tuned, texts).peak()


def test_a_transformer_s_sizes_are_those_of_its_architecture(tmp_path):
    config = replace(TINY, encoder="bag+transformer", transformer=save_tiny_transformer(tmp_path))
    model = BertModel.from_pretrained(tmp_path)
    expected = TransformerSizes(sum(parameter.numel() for parameter in model.parameters()), 2, 32, 4)
    assert sizes_of(TrainingSet(*topic_texts()), config).transformer == expected
    assert sizes_of(TrainingSet(*topic_texts()), TINY).transformer is None


def test_the_sizes_of_few_texts_are_exact():
    data = TrainingSet(*topic_texts())
    features = build_encoder(TINY, data.inputs).sparse_features
    found = sizes_of(data, TINY)
    assert (found.num_texts, found.num_labels, found.num_pairs) == (480, 45, 960)
    assert (found.num_features, found.num_entries) == (features.shape[1], features.nnz)
    assert found.text_bytes == sum(map(len, data.inputs))


def test_the_sizes_of_many_texts_are_estimated(monkeypatch):
    # Words as frequent as those of a language.
    rng = np.random.default_rng(0)
    words = np.minimum(rng.zipf(1.4, (4000, 12)), 50_000)
    data = TrainingSet([" ".join(f"w{word}" for word in row) for row in words], [["a"]] * len(words))
    exact = sizes_of(data, TINY)
    monkeypatch.setattr(model_sizes, "_SAMPLED_CHARACTERS", exact.text_bytes // 8)
    found = sizes_of(data, TINY)
    assert found != exact
    assert found.num_features == pytest.approx(exact.num_features, rel=0.5)
    assert found.num_entries == pytest.approx(exact.num_entries, rel=0.3)


def test_the_sizes_of_other_inputs():
    features, labels = topic_features()
    found = sizes_of(TrainingSet(features, labels), TINY)
    assert (found.num_features, found.num_entries, found.text_bytes) == (features.shape[1], features.nnz, 0)
    embeddings = TrainingSet(np.ones((2, 7), np.float32), [["a"], ["b"]])
    assert sizes_of(embeddings, Config(encoder="precomputed")).input_dim == 7


def test_a_run_that_needs_too_much_is_refused_before_any_work(tmp_path, monkeypatch):
    data = TrainingSet(*topic_texts())
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    with pytest.raises(ConfigError, match=r"needs about .* of memory, but 1 MiB are available.* What lowers it: "):
        train_model(data, tmp_path / "model", replace(TINY, dim=1024))
    assert list(tmp_path.iterdir()) == []
    assert dry_run(data, tmp_path / "model", replace(TINY, dim=1024)).peak() > 2**20
    assert train_model(data, tmp_path / "model", TINY, check_memory=False).index.num_labels == 45


def test_where_the_system_does_not_say_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    train_model(TrainingSet(*topic_texts()), tmp_path / "model", TINY)
    assert memory.available_line().endswith("unknown")


@pytest.mark.parametrize(
    ("group", "expected"),
    [(None, 3000 * 1024), (("max", "5"), 3000 * 1024), (("1000000", "400000"), 600_000)],
)
def test_available_memory_is_what_system_and_group_leave(tmp_path, monkeypatch, group, expected):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 1000 kB\nMemAvailable: 3000 kB\n")
    if group:
        (tmp_path / "memory.max").write_text(group[0] + "\n")
        (tmp_path / "memory.current").write_text(group[1] + "\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.available_memory() == expected
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.available_memory() is None


@pytest.mark.parametrize(("num_bytes", "text"), [(0, "0 MiB"), (3 << 20, "3 MiB"), (5 << 29, "2.5 GiB")])
def test_bytes_are_shown_for_people(num_bytes, text):
    assert memory.shown_bytes(num_bytes) == text


def test_a_dry_run_checks_what_training_checks(tmp_path):
    data = TrainingSet(*topic_texts())
    for config in (replace(TINY, num_clusters=99), replace(TINY, device="banana")):
        with pytest.raises(ConfigError):
            dry_run(data, tmp_path / "model", config)
    with pytest.raises(FileNotFoundError):
        dry_run(data, tmp_path / "none" / "model", TINY)
    assert list(tmp_path.iterdir()) == []


def test_given_clusters_of_unequal_size_are_padded_to_the_largest():
    config = Config(num_clusters=50, labels_per_cluster=200)
    equal, unequal = replace(SIZES, largest_cluster=100), replace(SIZES, largest_cluster=4_000)
    assert part(config, equal, "adjacency") == part(config, SIZES, "adjacency") == 4 * (50 * 100 + 5_000)
    assert part(config, unequal, "adjacency") == 4 * (50 * 4_000 + 5_000)
    # Labels, logits and two moments of all slots, whose rows are no shorter than the largest cluster.
    learned = "adjacency, its logits and moments"
    assert 16 * 50 * 4_000 <= part(config, unequal, learned) < 16 * 50 * 4_000 + 10 * part(config, equal, "adjacency")
    assert part(config, unequal, "centroids of labels") == 0


def test_given_clusters_that_take_too_much_are_refused_before_any_work(tmp_path, monkeypatch):
    texts = [f"text {number}" for number in range(4_000)]
    data = TrainingSet(texts, [[f"label {number}"] for number in range(4_000)])
    # One cluster has half of the labels, each other label its own: 2001 rows of 2000.
    unequal = {name: name if int(name[6:]) % 2 else "rest" for name in data.label_names}
    equal = {name: f"cluster {int(name[6:]) // 2}" for name in data.label_names}
    config = replace(TINY, num_clusters=None, stage1_epochs=1, stage2_epochs=0)
    account = dry_run(data, tmp_path / "model", config, clusters=equal)
    enough = account.peak() - account.present()
    monkeypatch.setattr(memory, "available_memory", lambda: enough)
    memory.check_memory(account)
    with pytest.raises(ConfigError, match=r"What lowers it: .*clusters of more equal size"):
        train_model(data, tmp_path / "model", config, clusters=unequal)
    assert list(tmp_path.iterdir()) == []


def test_clustering_again_holds_the_trained_embeddings():
    config = replace(Config(dim=64), recluster_epochs=1)
    account = memory_account(config, SIZES)
    again = account.held("clustering again", on_device=False)
    assert again > account.held("clustering", on_device=False) + 10_000 * 64 * 4 + 5_000 * 64 * (2 + 8)
    assert any("in all during clustering again" in line for line in account.lines())
    assert not any("clustering again" in line for line in memory_account(Config(), SIZES).lines())


def test_a_transformer_s_embeddings_are_made_to_cluster_by():
    base = TransformerSizes(num_parameters=110_000_000, num_layers=12, hidden_size=768, num_heads=12)
    sizes = replace(SIZES, text_bytes=1_000_000, transformer=base)
    config = Config(encoder="transformer", transformer="bert", cluster_by="dense")
    name = "embeddings to cluster by"
    assert part(config, sizes, name) == 10_000 * 768 * 4
    assert part(config, sizes, "centroids of labels") >= 5_000 * 768 * 2
    # These come from a mapped file, and n-grams are what others cluster by.
    assert part(replace(config, frozen=True), sizes, name) == part(replace(config, cluster_by=None), sizes, name) == 0


def test_parts_of_a_step_that_grow_with_the_batch():
    config = Config(dim=768, batch_size=4096, num_threads=1)
    step = part(config, SIZES, "a step") / 2
    # 32 parts of the core have a gradient of all embeddings each.
    assert step > 4096 * (32 * 768 * 4 + 500 * 56)
    # Gradients of all labels' rows: two that are added up, and their sum.
    assert part(replace(config, accumulation_steps=2), SIZES, "a step") / 2 > step + 3 * 5_000 * 768 * 4


def test_what_many_labels_take_does_not_grow_as_counts_of_clusters_and_labels():
    # As many as Amazon-3M has.
    sizes = ModelSizes(1_717_899, 2_812_281, 61_913_000, num_features=337_067, num_entries=170_000_000)
    config = Config(num_clusters=32_768, labels_per_cluster=500, num_threads=16)
    account = memory_account(config, sizes)
    own = {phase: sum(part.num_bytes for part in account.parts if part.span == phase) for phase in PHASES}
    assert own["clustering"] < 2 * 2**30
    assert own["between the stages"] < 2 * 2**30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of a process")
def test_the_account_is_about_what_is_measured():
    script = Path(__file__).parent / "measure_memory.py"
    # What is freed goes back to the system, so that no part is made in what another one left.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    measured = json.loads(result.stdout)
    assert measured.keys() == {"clustering", "between the stages", "start of stage 2"}
    for phase, (counted, found) in measured.items():
        assert found > 50 * 2**20, phase
        assert 0.8 < counted / found < 1.5, (phase, counted, found)
