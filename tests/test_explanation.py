"""Explanations of predictions: their parts are those of an independent computation, and add up to the scores."""

from dataclasses import replace

import numpy as np
import pytest

import oracle_fusion
from elias_idx import EVIDENCE, Model
from elias_idx.data import TrainingSet
from elias_idx.errors import DataError
from elias_idx.train import train_model
from helpers_training import TINY, topic_features, topic_texts

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)
LINEAR = np.linspace(-0.2, 0.3, len(EVIDENCE), dtype=np.float32)
TREES = oracle_fusion.random_trees(3)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    config = replace(TINY, preset="full", num_candidates=6, num_neighbours=4)
    return train_model(TrainingSet(TEXTS * 4, LABELS * 4), path, config)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    return train_model(TrainingSet(TEXTS, LABELS), path, replace(TINY, beam_size=2, shortlist_size=8))


def assert_explained(model, text, **sizes):
    """Holds the explanations of all labels to what is predicted."""
    explained = model.explain(text, np.arange(model.index.num_labels), **sizes)
    found = model.predict([text], 6, **sizes)
    scores = {each.name: each.score for each in explained}
    assert [scores[name] for name in found.names[0]] == pytest.approx(found.scores[0], rel=1e-4)
    rest = [score for name, score in scores.items() if name not in found.names[0]]
    assert max(rest, default=0) <= min(found.scores[0]) * (1 + 1e-4)
    return explained


@pytest.mark.parametrize("trees", [None, TREES])
@pytest.mark.parametrize("sizes", [{}, {"beam_size": 2, "shortlist_size": 7}])
def test_parts_of_fused_scores_add_up_to_them(fused, trees, sizes):
    model = replace(fused, index=fused.index.with_fusion(LINEAR, -0.5, trees))
    for text in TEXTS[::17]:
        explained = assert_explained(model, text, **sizes)
        embeddings, sparse = model.vectorise([text])
        evidence = model.index.evidence(embeddings, sparse, **sizes)
        expected = oracle_fusion.scores(oracle_fusion.Candidates(evidence.labels, evidence.values), LINEAR, -0.5, trees)
        candidates = dict(zip(evidence.labels.tolist(), range(len(evidence.labels)), strict=True))
        for each in explained:
            if each.label not in candidates:
                assert each.fused is None
                assert each.score == 0
                continue
            row = candidates[each.label]
            assert each.score == pytest.approx(expected[row], rel=1e-6)
            assert {term.name: term.value for term in each.fused.terms} == dict(
                zip(EVIDENCE, evidence.values[row].tolist(), strict=True)
            )
            shares = [
                weight * value for weight, value in zip(LINEAR.tolist(), evidence.values[row].tolist(), strict=True)
            ]
            assert [term.share for term in each.fused.terms] == pytest.approx(shares)
            assert (each.fused.bias, each.fused.trees == 0) == (-0.5, trees is None)


def test_dense_scores_are_path_times_probability(dense):
    for text in TEXTS[::17]:
        for each in assert_explained(dense, text):
            assert each.fused is None
            if each.dense.in_shortlist:
                best = each.dense.best_path
                product = best.cluster_score * best.weight / (1 + np.exp(-each.dense.logit))
                assert each.score == pytest.approx(product, rel=1e-5)
            else:
                assert each.score == 0


def test_labels_by_name_in_the_order_given(fused, dense):
    for model in (fused, dense):
        explained = model.explain(TEXTS[0], ["group1", "t3"])
        assert [each.name for each in explained] == ["group1", "t3"]
        assert "group1" in str(explained[0])
    candidate, other = (next(each for each in explained if (each.fused is None) == missing) for missing, explained in (
        (False, fused.explain(TEXTS[0], fused.predict(TEXTS[:1], 1).names[0])),
        (True, fused.explain(TEXTS[0], np.arange(fused.index.num_labels))),
    ))  # fmt: skip
    assert "fused score" in str(candidate)
    assert "none of the fusion's candidates" in str(other)


def test_rows_of_features(tmp_path):
    features, labels = topic_features()
    model = train_model(TrainingSet(features, labels), tmp_path / "model", TINY)
    found = model.predict(features[:1], 1)
    assert model.explain(features[:1], found.names[0])[0].score == pytest.approx(found.scores[0][0], rel=1e-4)


def test_bad_arguments(dense):
    with pytest.raises(DataError, match="explain takes one text, got 2"):
        dense.explain(TEXTS[:2], [0])
    with pytest.raises(ValueError, match='no label is called "nothing"'):
        dense.explain(TEXTS[0], ["nothing"])
    with pytest.raises(ValueError, match="beam_size must be at least 1"):
        dense.explain(TEXTS[0], [0], beam_size=0)


def test_scores_far_from_the_middle(fused):
    for bias, expected in ((-200.0, 0.0), (200.0, 1.0)):
        model: Model = replace(fused, index=fused.index.with_fusion(np.zeros(len(EVIDENCE)), bias))
        (found,) = model.explain(TEXTS[0], model.predict(TEXTS[:1], 1).names[0])
        assert found.score == pytest.approx(expected, abs=1e-30)
