"""Encoders that serve and the torch modules that become them."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from elias_idx.config import Config
from elias_idx.encoders import load_encoder
from elias_idx.errors import DataError, FormatError
from elias_idx.train.encoders import build_encoder
from helpers_training import NGRAMS

TEXTS = [
    "acute viral hepatitis",
    "chronic viral hepatitis b",
    "fracture of the femur",
    "open fracture of the tibia",
]


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = build_encoder(Config(dim=12, **NGRAMS), TEXTS)
    with torch.no_grad():
        module.layer_norm.weight.normal_()
        module.layer_norm.bias.normal_()
    return module


def test_the_served_encoder_agrees_with_the_trained_module(module):
    module.eval()
    expected = module(torch.arange(4)).detach().numpy()
    assert module.finished().encode(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(np.full(4, 8.0), rel=1e-5)


def test_saved_encoders_load_and_encode_the_same(module, tmp_path):
    encoder = module.finished()
    encoder.save(tmp_path)
    loaded = load_encoder("bag", tmp_path)
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert loaded.dim == 12


def test_texts_without_features_get_finite_embeddings(module):
    found = module.finished().encode(["", "qqq"])
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], found[1])
    assert module.finished().encode([]).shape == (0, 12)


def test_long_inputs_are_encoded_in_parts(module):
    encoder = module.finished()
    many = encoder.encode(TEXTS * 1200)
    assert many.shape == (4800, 12)
    assert many[-4:] == pytest.approx(encoder.encode(TEXTS), abs=1e-5)


@pytest.mark.parametrize("form", [sp.coo_matrix, sp.csc_matrix, sp.coo_array])
def test_sparse_features_may_have_any_form(form):
    features = sp.random(5000, 30, 0.2, format="csr", random_state=0)
    encoder = build_encoder(Config(dim=12, **NGRAMS), features).finished()
    assert np.array_equal(encoder.encode(form(features)), encoder.encode(features))


def test_precomputed_embeddings_pass_through(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 5))
    module = build_encoder(Config(encoder="precomputed", dropout=0.0), array)
    assert module(torch.tensor([2, 0])).numpy() == pytest.approx(array[[2, 0]], abs=1e-6)
    module.finished().save(tmp_path)
    loaded = load_encoder("precomputed", tmp_path)
    assert loaded.encode(array).dtype == np.float32
    with pytest.raises(DataError, match=r"\[N, 5\]; got float64 of shape \[3, 4\]"):
        loaded.encode(array[:, :4])
    with pytest.raises(DataError, match="row 1 is not finite"):
        loaded.encode(array * np.array([[1], [np.inf], [1]]))


def test_mapped_embeddings_stay_on_disk(tmp_path):
    array = np.random.default_rng(0).normal(size=(20_000, 3)).astype(">f4")
    np.save(tmp_path / "rows.npy", array)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    module = build_encoder(Config(encoder="precomputed"), mapped)
    assert not [name for name, _ in module.named_buffers()]
    assert module(torch.tensor([19_999, 7])).numpy() == pytest.approx(array[[19_999, 7]])
    array[12_345, 1] = np.nan
    with pytest.raises(DataError, match="row 12345 is not finite"):
        build_encoder(Config(encoder="precomputed"), array)


def test_an_array_is_not_for_the_bag_encoder():
    with pytest.raises(DataError, match="takes a list of texts"):
        build_encoder(Config(), np.ones((2, 3)))


def test_unknown_encoders_are_refused_by_name(tmp_path):
    with pytest.raises(FormatError, match="unknown encoder 'quantum'"):
        load_encoder("quantum", tmp_path)


def test_encoder_files_hold_no_code(module, tmp_path):
    module.finished().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bag.json", "bag.safetensors", "features.json", "features.safetensors"
    ]  # fmt: skip
    json.loads((tmp_path / "features.json").read_text(encoding="utf-8"))
