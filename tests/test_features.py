"""Inputs as sparse vectors."""

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.config import Config
from elias_idx.errors import DataError
from elias_idx.features import FeatureConfig, GivenFeatures, TextFeatures, load_features

TEXTS = [
    "acute viral hepatitis",
    "chronic viral hepatitis b",
    "fracture of the femur",
    "open fracture of the tibia",
]


def test_rows_have_unit_length_and_unknown_texts_none():
    features = TextFeatures(Config().features)
    matrix = features.fit_transform(TEXTS)
    assert matrix.dtype == np.float32
    assert matrix.shape == (4, features.num_features)
    assert np.asarray(matrix.multiply(matrix).sum(1)).ravel() == pytest.approx(np.ones(4), abs=1e-5)
    assert features.transform(["", "qqq"]).nnz == 0


def test_transform_repeats_what_fitting_gave():
    features = TextFeatures(Config().features)
    matrix = features.fit_transform(TEXTS)
    assert abs(features.transform(TEXTS) - matrix).max() < 1e-6


def test_saved_features_load_and_give_the_same(tmp_path):
    features = TextFeatures(FeatureConfig((1, 1), (2, 3), 1, 2))
    matrix = features.fit_transform(TEXTS)
    features.save(tmp_path)
    loaded = TextFeatures.load(tmp_path)
    assert loaded.config == features.config
    assert abs(loaded.transform(TEXTS) - matrix).max() < 1e-6


@pytest.mark.parametrize(("words", "chars"), [((0, 0), (3, 4)), ((1, 2), (0, 0))])
def test_either_kind_of_n_gram_can_be_left_out(tmp_path, words, chars):
    features = TextFeatures(FeatureConfig(words, chars, 1, 2))
    matrix = features.fit_transform(TEXTS)
    features.save(tmp_path)
    assert abs(TextFeatures.load(tmp_path).transform(TEXTS) - matrix).max() < 1e-6


def test_rare_n_grams_are_left_out():
    every, frequent = (TextFeatures(FeatureConfig((1, 1), (0, 0), least, 1)) for least in (1, 2))
    every.fit_transform(TEXTS)
    frequent.fit_transform(TEXTS)
    # viral, hepatitis, fracture, of, the stand in two texts each.
    assert (every.num_features, frequent.num_features) == (11, 5)


def test_texts_without_features_are_an_error():
    with pytest.raises(DataError, match="no features"):
        TextFeatures(Config().features).fit_transform(["", "  "])


@pytest.mark.parametrize("texts", [["red apple", "green tree"], ["one text"]])
def test_a_kind_of_n_gram_that_is_too_rare_is_left_out(tmp_path, texts):
    features = TextFeatures(FeatureConfig((1, 1), (3, 5), 1, 2))
    matrix = features.fit_transform(texts)
    assert matrix.shape[1] == features.num_features == len({word for text in texts for word in text.split()})
    features.save(tmp_path)
    assert abs(TextFeatures.load(tmp_path).transform(texts) - matrix).max() < 1e-6


GIVEN = sp.csr_matrix(np.array([[3, 0, 4], [0, 0, 0], [0, 0.5, 0]]))


def test_given_features_get_unit_length(tmp_path):
    features = GivenFeatures(3)
    matrix = features.fit_transform(GIVEN)
    assert matrix.dtype == np.float32
    assert matrix.toarray() == pytest.approx(np.array([[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]]))
    assert GIVEN[0, 0] == 3
    features.save(tmp_path)
    loaded = load_features(tmp_path)
    assert isinstance(loaded, GivenFeatures)
    assert (loaded.transform(GIVEN) != matrix).nnz == 0


def test_columns_of_a_row_may_come_in_any_order():
    shuffled = sp.csr_matrix((np.array([4.0, 3.0]), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert GivenFeatures(3).transform(shuffled).indices.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (TEXTS, r"takes sparse features, a CSR matrix \[N, 3\]"),
        (np.ones((2, 3)), "takes sparse features"),
        (GIVEN[:, :2], "takes 3 features a row, got 2"),
        (sp.csr_matrix([[0, 1, 0], [0, 0, np.inf]]), "row 1 are not all finite"),
    ],
)
def test_inputs_of_another_kind_are_refused(inputs, message):
    with pytest.raises(DataError, match=message):
        GivenFeatures(3).transform(inputs)


def test_text_features_take_no_matrix():
    features = TextFeatures(Config().features)
    features.fit_transform(TEXTS)
    with pytest.raises(DataError, match=r"takes texts, got an array of float64 of shape \[3, 3\]"):
        features.transform(GIVEN)
