"""Training with transformers: gradients, caches, and whole runs."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from elias_idx import Model
from elias_idx.config import Config
from elias_idx.encoders import transformer as serving
from elias_idx.errors import FormatError
from elias_idx.train import TrainingSet, train_model
from elias_idx.train.encoders import build_encoder
from elias_idx.train.encoders.cache import fingerprint
from elias_idx.train.logs import TrainingLog
from helpers_training import NGRAMS, TINY, topic_texts
from helpers_transformer import save_tiny_transformer

TEXTS = ["viral hepatitis", "", "chronic viral hepatitis b", "fracture of the femur", "viral", "open fracture"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = sorted({word for text in topic_texts()[0] for word in text.split()})
    return save_tiny_transformer(tmp_path_factory.mktemp("bert"), words)


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A transformer with dropout of its own."""
    return save_tiny_transformer(tmp_path_factory.mktemp("bert"), dropout=0.2)


@pytest.fixture
def config(folder):
    return Config(encoder="transformer", transformer=folder, max_tokens=20, precision="float32", **NGRAMS)


def trainable(config, tmp_path, texts=TEXTS):
    module = build_encoder(config, texts)
    module.prepare(tmp_path)
    return module


def gradients(module, seed=0):
    """Of a random projection of the embeddings of a batch."""
    torch.manual_seed(seed)
    rows = torch.tensor([2, 0, 5, 3, 1])
    (module(rows) * torch.randn(5, module.dim, generator=torch.Generator().manual_seed(1))).sum().backward()
    found = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    module.zero_grad()
    return found


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], atol=1e-4), name


def test_batches_of_like_length_give_the_gradients_of_one_batch(config, tmp_path, monkeypatch):
    module = trainable(config, tmp_path)
    together = gradients(module)
    monkeypatch.setattr(serving, "tokens_at_once", lambda _: 12)
    assert_close(gradients(module), together)


def test_gradient_checkpointing_gives_the_same_gradients(dropping, config, tmp_path):
    config = replace(config, transformer=dropping)
    plain = gradients(trainable(config, tmp_path))
    calls = []
    module = trainable(replace(config, gradient_checkpointing=True), tmp_path)
    module.transformer.model.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
    assert_close(gradients(module), plain)
    assert len(calls) == 2
    with torch.no_grad():
        module(torch.arange(2))
    assert len(calls) == 3


def test_dropout_within_the_transformer_follows_from_the_seed(dropping, config, tmp_path):
    module = trainable(replace(config, transformer=dropping), tmp_path)
    first = gradients(module, seed=3)
    assert_close(gradients(module, seed=3), first)
    assert not all(torch.equal(value, first[name]) for name, value in gradients(module, seed=4).items())


def test_bfloat16_is_near_float32_and_differs(config, tmp_path):
    rows = torch.arange(len(TEXTS))
    exact = trainable(config, tmp_path)(rows)
    found = trainable(replace(config, precision="bfloat16"), tmp_path)(rows)
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=0.3)
    assert not torch.equal(found, exact)


def test_every_trained_parameter_is_in_one_group_and_moves(config, tmp_path):
    module = trainable(config, tmp_path)
    groups = module.parameter_groups(replace(config, transformer_learning_rate=0.01, weight_decay=0.3))
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {group["lr"] for group in groups} == {0.01}
    assert {parameter.ndim for parameter in groups[1]["params"]} == {1}
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    touched = gradients(module)
    assert grouped == {id(value) for name, value in module.named_parameters() if name in touched}
    assert len(touched) > 30


def test_a_frozen_transformer_has_nothing_to_train_or_store(config, tmp_path):
    module = trainable(replace(config, frozen=True), tmp_path)
    assert list(module.parameters()) == list(module.state_dict()) == module.parameter_groups(config) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_prepared_is_used_again_only_for_the_same_texts_and_settings(config, tmp_path, frozen):
    config = replace(config, frozen=frozen)
    embeddings = trainable(config, tmp_path).eval()(torch.arange(6))

    def stamps():
        return {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*/*")}

    first = stamps()
    again = trainable(config, tmp_path).eval()
    assert stamps() == first
    assert torch.equal(again(torch.arange(6)), embeddings)
    for changed, texts in [(replace(config, max_tokens=8), TEXTS), (config, TEXTS[::-1])]:
        module = trainable(changed, tmp_path, texts).eval()
        assert stamps().items().isdisjoint(first.items())
        assert np.allclose(module(torch.arange(6)).detach(), module.finished().encode(texts), atol=0.3)
        first = stamps()


def test_frozen_embeddings_follow_the_weights(config, tmp_path):
    before = trainable(replace(config, frozen=True), tmp_path)(torch.arange(6))
    other = save_tiny_transformer(tmp_path / "other", seed=7)
    after = trainable(replace(config, frozen=True, transformer=other), tmp_path)(torch.arange(6))
    assert not torch.allclose(before, after, atol=0.1)


def test_an_interrupted_preparation_starts_again(config, tmp_path):
    (tmp_path / ".tokens.partial").mkdir()
    (tmp_path / ".tokens.partial" / "ids").write_bytes(b"part")
    (tmp_path / "tokens").mkdir()
    assert trainable(config, tmp_path)(torch.arange(6)).shape == (6, 32)


def test_a_damaged_preparation_is_found(config, tmp_path):
    trainable(config, tmp_path)
    ids = tmp_path / "tokens" / "ids"
    ids.write_bytes(ids.read_bytes()[:-2])
    with pytest.raises(FormatError, match="tokens is damaged: remove it"):
        trainable(config, tmp_path)


def test_fingerprints_tell_where_parts_are_divided():
    prints = [fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint([b"ab", b"c"]), fingerprint([b"a", b"bc"])]
    assert len(set(prints)) == 4


# What a tiny frozen transformer of random weights tells is little, but more than the 11 % of chance. It sees all
# clusters, so that it does not matter which labels lie together.
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("encoder", "least"), [("transformer", 25), ("bag+transformer", 80)])
def test_models_train_save_load_and_predict(folder, tmp_path, encoder, frozen, least):
    config = replace(
        TINY, encoder=encoder, transformer=folder, max_tokens=30, frozen=frozen, transformer_learning_rate=2e-3
    )
    if frozen:
        config = replace(config, train_beam_size=8, train_shortlist_size=48)
    model = train_model(TrainingSet(*topic_texts()), tmp_path / "model", config)
    texts, labels = topic_texts(seed=1)
    assert model.evaluate(texts, labels, ks=(2,), recall_ks=()).metrics["P@2"] > (least if frozen else 80)
    loaded = Model.load(tmp_path / "model")
    loaded.verify()
    assert loaded.predict(texts[:9]) == model.predict(texts[:9])
    loaded.save(tmp_path / "again")
    loaded.save(tmp_path / "again", overwrite=True)
    assert Model.load(tmp_path / "again").predict(texts[:9]) == model.predict(texts[:9])


def test_frozen_is_tuned_at_learning_rate_0(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "_has_bfloat16", lambda _: False)
    base = replace(TINY, encoder="transformer", transformer=folder, max_tokens=30, stage2_epochs=0, stage1_epochs=1)
    data = TrainingSet(*topic_texts())
    frozen = train_model(data, tmp_path / "frozen", replace(base, frozen=True))
    tuned = train_model(data, tmp_path / "tuned", replace(base, transformer_learning_rate=0.0, weight_decay=0.0))
    assert tuned.index.label_weights == pytest.approx(frozen.index.label_weights, abs=0.02)
    assert tuned.encode(data.inputs[:5]) == pytest.approx(frozen.encode(data.inputs[:5]), abs=1e-5)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("frozen", [False, True])
def test_a_resumed_run_ends_like_an_undisturbed_one(dropping, tmp_path, monkeypatch, frozen):
    config = replace(TINY, encoder="bag+transformer", transformer=dropping, max_tokens=30, frozen=frozen)
    data = TrainingSet(*topic_texts())
    texts = data.inputs[:20]

    undisturbed = train_model(data, tmp_path / "undisturbed", config)
    # Between the checkpoints after steps 16 and 20 of 45.
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "step", Mock(side_effect=[None] * 18 + [Stopped]))
        with pytest.raises(Stopped):
            train_model(data, tmp_path / "model", replace(config, checkpoint_steps=4))
    resumed = train_model(data, tmp_path / "model", config, if_exists="resume")
    assert np.array_equal(resumed.encode(texts), undisturbed.encode(texts))
    assert np.array_equal(resumed.index.label_weights, undisturbed.index.label_weights)
