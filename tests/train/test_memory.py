"""The memory account: counted from shapes, and what does not fit is refused before any work."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import BertModel

from elias_idx.config import Config
from elias_idx.errors import ConfigError
from elias_idx.train import TrainingSet, dry_run, memory, train_model
from elias_idx.train.encoders import build_encoder
from elias_idx.train.memory import ModelSizes, TransformerSizes, memory_account, sizes_of
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
    assert part(replace(config, label_dtype="bfloat16"), SIZES, "label classifiers") == 5_000 * (100 * 2 + 4)


def test_the_peak_is_that_of_the_largest_phase():
    account = memory_account(Config(), SIZES)
    phases = [account.held(phase, on_device=False) for phase in memory._PHASES]
    assert account.peak() == max(phases)
    assert account.peak() <= sum(part.num_bytes for part in account.parts)
    assert account.held("stage 1", on_device=True) == 0


def test_a_device_of_its_own_is_counted_apart():
    account = memory_account(Config(device="cuda"), SIZES)
    assert account.peak(on_device=True) >= 2 * 5_000 * 512 * 4 + 2 * 40_000 * 512 * 4
    assert account.peak() < memory_account(Config(), SIZES).peak()
    assert any("at most on cuda" in line for line in account.lines())


def test_embeddings_and_transformers_set_the_size():
    base = TransformerSizes(num_parameters=110_000_000, num_layers=12, hidden_size=768, num_heads=12)
    texts = ModelSizes(10_000, 5_000, 30_000, text_bytes=1_000_000, transformer=base)
    tuned = Config(encoder="transformer", transformer="bert", batch_size=32)
    assert memory.embedding_dim(tuned, texts) == 768
    assert memory.embedding_dim(replace(tuned, encoder="bag+transformer"), texts) == 768 + 512
    assert memory.embedding_dim(Config(encoder="precomputed"), replace(SIZES, input_dim=50)) == 50
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
    monkeypatch.setattr(memory, "_SAMPLED_CHARACTERS", exact.text_bytes // 8)
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
    for config in (replace(TINY, dev_metric="X@1"), replace(TINY, num_clusters=99), replace(TINY, device="banana")):
        with pytest.raises(ConfigError):
            dry_run(data, tmp_path / "model", config)
    with pytest.raises(FileNotFoundError):
        dry_run(data, tmp_path / "none" / "model", TINY)
    assert list(tmp_path.iterdir()) == []
