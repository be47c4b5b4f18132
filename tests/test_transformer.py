"""Transformers as encoders: tokens, pooling, files, and the agreement of training and serving."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel, T5Config, T5Model

from elias_idx.config import Config
from elias_idx.encoders import load_encoder
from elias_idx.encoders import transformer as serving
from elias_idx.encoders.tokens import Tokens, batches_by_length, tokenize
from elias_idx.encoders.transformer import TransformerEncoder
from elias_idx.errors import ConfigError, DataError, FormatError, MissingExtraError
from elias_idx.train.encoders import build_encoder
from elias_idx.train.model_sizes import transformer_sizes
from helpers_training import NGRAMS
from helpers_transformer import save_tiny_transformer, tiny_tokenizer

TEXTS = [
    "viral hepatitis",
    "",
    "chronic viral hepatitis b with a rather long description that will have to be cut off",
    "fracture of the femur",
    "viral",
    "open fracture",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_transformer(tmp_path_factory.mktemp("bert"), ["viral", "fracture", "of"])


@pytest.fixture
def config(folder):
    return Config(encoder="transformer", transformer=folder, max_tokens=20, embedding_norm=3.0, dim=8, **NGRAMS)


@pytest.fixture
def exact(monkeypatch):
    """Serving in float32, also where the CPU has bfloat16."""
    monkeypatch.setattr(serving, "_has_bfloat16", lambda _: False)


def trainable(config, tmp_path, texts=TEXTS):
    module = build_encoder(config, texts)
    module.prepare(tmp_path)
    return module


def one_by_one(folder, text, max_tokens=20):
    """What the model gives for a single text without padding: last hidden states [T, D], and the pooler's output."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    output = model(**tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt"))
    return output.last_hidden_state[0].detach().numpy(), output.pooler_output[0].detach().numpy()


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_pooled_embeddings_are_those_of_each_text_by_itself(folder, pooling):
    encoder = TransformerEncoder.from_pretrained(folder, pooling, max_tokens=20, length=3.0)
    found = encoder.encode(TEXTS)
    for text, embedding in zip(TEXTS, found, strict=True):
        hidden, pooled = one_by_one(folder, text)
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "pooler": pooled}[pooling]
        assert embedding == pytest.approx(3 * expected / np.linalg.norm(expected), abs=1e-5)
    assert found.dtype == np.float32
    assert encoder.encode([]).shape == (0, 32)


def test_bfloat16_is_near_float32(folder, monkeypatch):
    encoder = TransformerEncoder.from_pretrained(folder, "mean", max_tokens=20, length=1.0)
    found = []
    for bfloat16 in (False, True):
        monkeypatch.setattr(serving, "_has_bfloat16", lambda _, value=bfloat16: value)
        found.append(encoder.encode(TEXTS))
    assert (found[0] * found[1]).sum(1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-3)
    assert not np.array_equal(*found)


@pytest.mark.usefixtures("exact")
def test_texts_are_cut_off(folder):
    short = TransformerEncoder.from_pretrained(folder, "mean", max_tokens=6, length=1.0)
    # Two marks and four letters.
    assert short.encode(["abcdefgh"]) == pytest.approx(short.encode(["abcd"]), abs=1e-6)


@pytest.mark.usefixtures("exact")
def test_batching_does_not_change_embeddings(folder, monkeypatch):
    encoder = TransformerEncoder.from_pretrained(folder, "mean", max_tokens=20, length=1.0)
    together = encoder.encode(TEXTS * 3)
    monkeypatch.setattr(serving, "tokens_at_once", lambda _: 1)
    monkeypatch.setattr(serving, "_TEXTS_AT_ONCE", 4)
    assert encoder.encode(TEXTS * 3) == pytest.approx(together, abs=1e-5)


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 200))
def test_batches_hold_every_text_once_and_no_more_tokens_than_allowed(lengths, tokens_at_once):
    lengths = np.array(lengths)
    batches = list(batches_by_length(lengths, tokens_at_once))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens_at_once for batch in batches)
    longest_first = lengths[np.concatenate(batches)]
    assert (np.diff(longest_first) <= 0).all()


def test_lone_surrogates_are_question_marks(folder):
    encoder = TransformerEncoder.from_pretrained(folder, "mean", max_tokens=20, length=1.0)
    found, expected = encoder.encode(["viral \ud800 b\udfff", "b"]), encoder.encode(["viral ? b?", "b"])
    assert found.tolist() == expected.tolist()


def test_rectangles_of_tokens():
    tokens = Tokens(np.array([5, 6, 7, 8, 9, 4], np.uint16), np.array([0, 2, 5, 6]), padding=1)
    ids, present = tokens.rectangle(np.array([2, 0]))
    assert ids.tolist() == [[4, 1], [5, 6]]
    assert present.tolist() == [[1, 0], [1, 1]]


def test_texts_without_tokens_become_one_padding_token():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    tokens = tokenize(tokenizer, ["", "ab"], max_tokens=5)
    assert tokens.ids[0] == tokenizer.pad_token_id
    assert tokens.lengths.tolist() == [1, 2]


@pytest.mark.parametrize("encoder", ["transformer", "bag+transformer"])
def test_saved_encoders_load_and_encode_the_same(config, tmp_path, encoder):
    (tmp_path / "saved").mkdir()
    module = trainable(replace(config, encoder=encoder), tmp_path).finished()
    module.save(tmp_path / "saved")
    loaded = load_encoder(encoder, tmp_path / "saved")
    assert np.array_equal(loaded.encode(TEXTS), module.encode(TEXTS))
    assert loaded.dim == (32 if encoder == "transformer" else 40)
    assert {file.suffix for file in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    modes = {file.stat().st_mode for file in (tmp_path / "saved").iterdir()}
    assert len(modes) == 1


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("encoder", ["transformer", "bag+transformer"])
def test_the_served_encoder_agrees_with_the_trained_module(config, tmp_path, encoder, frozen):
    module = trainable(replace(config, encoder=encoder, frozen=frozen), tmp_path).eval()
    rows = torch.tensor([3, 0, 2, 2, 4])
    expected = module(rows).detach().numpy()
    assert module.finished().encode([TEXTS[row] for row in rows]) == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(np.full(5, 3.0), rel=1e-5)
    share = 1.0 if encoder == "transformer" else 0.5
    assert np.square(expected[:, -32:]).sum(1) == pytest.approx(np.full(5, 9.0 * share), rel=1e-5)
    assert module.dense_features() == pytest.approx(module(torch.arange(6)).detach().numpy()[:, -32:], abs=1e-5)


def test_serving_leaves_a_module_in_training_as_it_was(config, tmp_path):
    module = trainable(config, tmp_path)
    module.finished().encode(TEXTS)
    assert module.transformer.model.training
    module(torch.arange(2)).sum().backward()
    module.eval()
    module.finished().encode(TEXTS)
    assert not module.transformer.model.training


def test_no_more_threads_than_asked_for(folder, monkeypatch):
    encoder = TransformerEncoder.from_pretrained(folder, "mean", 20, 1.0)
    before, found = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    for num_threads in (1, 3, 100, None):
        encoder.encode(["viral"], num_threads)
    assert found == [1, 4, 3, 4, 4, 4, 4, 4]
    monkeypatch.undo()
    assert torch.get_num_threads() == before


def test_inputs_must_be_texts(folder, config):
    with pytest.raises(DataError, match="text 1 must be a string, got int"):
        TransformerEncoder.from_pretrained(folder, "mean", 20, 1.0).encode(["a", 3])
    with pytest.raises(DataError, match="takes texts, got an array"):
        build_encoder(config, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer": None}, "transformer must name"),
        ({"transformer": "/no/such/folder"}, "no folder /no/such/folder"),
        ({"transformer": "./elsewhere"}, "no folder ./elsewhere"),
        ({"max_tokens": 257}, "between 3 and 256"),
        ({"max_tokens": 2}, "between 3 and 256"),
    ],
)
def test_settings_that_do_not_fit_are_explained(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(replace(config, **changes), TEXTS)
    # A dry run finds it too, which loads no weights.
    with pytest.raises(ConfigError, match=message):
        transformer_sizes(replace(config, **changes))


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the model's folder, to do damage to."""
    return shutil.copytree(folder, tmp_path / "copy")


def refused(copy, message):
    with pytest.raises(ConfigError, match=message):
        TransformerEncoder.from_pretrained(str(copy), "mean", 20, 1.0)


def test_a_folder_must_hold_an_encoder(copy):
    (copy / "config.json").unlink()
    refused(copy, r"no config.json, so it is no Hugging Face encoder")


def test_weights_must_be_safetensors(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, "no weights as safetensors")


def test_a_tokenizer_must_be_there(copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    refused(copy, "no tokenizer")


def test_code_that_comes_with_a_model_is_not_run(copy, tmp_path):
    (copy / "own_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    settings = json.loads((copy / "config.json").read_text())
    changes = {"model_type": "own", "auto_map": {"AutoConfig": "own_code.Own", "AutoModel": "own_code.Own"}}
    (copy / "config.json").write_text(json.dumps({**settings, **changes}))
    refused(copy, "can't be loaded")
    assert not (tmp_path / "ran").exists()


def test_all_weights_must_be_there(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, r"lacks weights of its own architecture: encoder.layer.1.output.dense.weight")


def test_a_pooler_must_have_been_trained(copy):
    weights = {name: value for name, value in load_file(copy / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert TransformerEncoder.from_pretrained(str(copy), "mean", 20, 1.0).encode(["viral"]).shape == (1, 32)
    with pytest.raises(ConfigError, match="none that was trained"):
        TransformerEncoder.from_pretrained(str(copy), "pooler", 20, 1.0)


def test_models_with_a_decoder_are_refused(copy):
    T5Model(T5Config(d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, vocab_size=100)).save_pretrained(copy)
    refused(copy, "has a decoder")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"hidden_size": 64}),
        ("config.json", {"num_hidden_layers": "x"}),
        ("config.json", None),
        ("tokenizer_config.json", None),
    ],
)
def test_damaged_settings_are_explained(copy, file, changes):
    content = [] if changes is None else {**json.loads((copy / file).read_text()), **changes}
    (copy / file).write_text(json.dumps(content))
    refused(copy, "can't be loaded")


def test_pooling_must_be_known(copy):
    with pytest.raises(ConfigError, match="pooling must be mean, cls or pooler, got 'max'"):
        TransformerEncoder.from_pretrained(str(copy), "max", 20, 1.0)


def test_positions_of_padding_are_none_of_a_text(copy):
    tokenizer = tiny_tokenizer()
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    settings |= {"vocab_size": len(tokenizer), "max_position_embeddings": 34, "pad_token_id": 0}
    RobertaModel(RobertaConfig(**settings)).save_pretrained(copy)
    encoder = TransformerEncoder.from_pretrained(str(copy), "mean", 33, 1.0)
    assert encoder.encode(["a " * 40]).shape == (1, 16)
    with pytest.raises(ConfigError, match="between 3 and 33 tokens"):
        TransformerEncoder.from_pretrained(str(copy), "mean", 34, 1.0)


def test_a_damaged_model_is_explained(config, tmp_path):
    build_encoder(config, TEXTS).finished().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match="damaged"):
        load_encoder("transformer", tmp_path)


def test_missing_packages_name_the_extra(monkeypatch, config):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("elias_idx.encoders.transformer", "elias_idx.encoders.pretrained"):
        monkeypatch.delitem(sys.modules, name)
    for name in ("elias_idx.train.encoders.transformer", "elias_idx.train.encoders.hybrid"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtraError, match=r"transformers is not installed: .*elias_idx\[transformer\]"):
        build_encoder(config, TEXTS)
