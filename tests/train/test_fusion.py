"""Fitting a fusion to evidence."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

import oracle
import oracle_fusion
from elias_idx import EVIDENCE, Evidence
from elias_idx.errors import DataError
from elias_idx.train import fusion as train_fusion
from elias_idx.train import fusion_fit
from elias_idx.train.fusion import OF_COOCCURRENCE, OF_NEIGHBOURS, OF_RANKER, Fusion, _Trial, fit_fusion
from elias_idx.train.fusion_fit import Pairs, Score, exported, fit_score
from helpers_index import build

NUM_LABELS = 60
AT = {name: column for column, name in enumerate(EVIDENCE)}
Array = npt.NDArray[Any]


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def made_up(
    num_texts: int = 300, per_text: int = 40, *, useful: tuple[str, ...] = ("margin", "log_votes"), seed: int = 0
) -> tuple[Evidence, sp.csr_matrix, Array]:
    """Evidence of which `log_dense` and the useful columns say what is right; and how probable that is.

    Labels that only have votes are never right if votes aren't useful.
    """
    rng = np.random.default_rng(seed)
    n = num_texts * per_text
    values = rng.standard_normal((n, len(EVIDENCE))).astype(np.float32)
    found = np.arange(n) % per_text < per_text * 3 // 4
    values[:, AT["found"]] = found
    logits = values[:, [AT["log_dense"], *(AT[name] for name in useful)]].sum(1) - 4.0
    probabilities = sigmoid(1.5 * logits)
    if "log_votes" not in useful:
        probabilities = probabilities * found
    labels = np.concatenate([rng.permutation(NUM_LABELS)[:per_text] for _ in range(num_texts)])
    # What is found comes first, best first, as an index gives it.
    text = np.repeat(np.arange(num_texts), per_text)
    order = np.lexsort((-values[:, AT["log_dense"]], ~found, text))
    values, labels, probabilities = values[order], labels[order], probabilities[order]
    evidence = Evidence(np.arange(0, n + 1, per_text, dtype=np.int64), labels.astype(np.int64), values)
    return evidence, labelled(evidence, rng.random(n) < probabilities), probabilities


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of parts that tell nothing, about one in six gains a standard error by chance, three errors hardly any."""
    monkeypatch.setattr(train_fusion, "CLEAR", 3.0)


def labelled(evidence: Evidence, right: Array) -> sp.csr_matrix:
    """The texts' labels, given which candidates are right."""
    counts = np.diff(evidence.offsets)
    texts = np.repeat(np.arange(len(counts)), counts)
    pairs = (np.ones(right.sum()), (texts[right], evidence.labels[right]))
    return sp.csr_matrix(pairs, shape=(len(counts), NUM_LABELS))


def linear_score(fusion: Fusion, values: Array) -> Array:
    return values.astype(np.float64) @ fusion.linear + fusion.bias


def total_score(fusion: Fusion, values: Array) -> Array:
    return oracle_fusion.scores(
        oracle_fusion.Candidates(np.zeros(len(values)), values), fusion.linear, fusion.bias, fusion.trees
    )


def test_recovers_a_logistic_function() -> None:
    evidence, labels, probabilities = made_up(1500)
    fusion = fit_fusion(evidence, labels)
    assert (fusion.uses_ranker, fusion.uses_neighbours) == (True, True)
    for name in ("log_dense", "margin", "log_votes"):
        assert fusion.linear[AT[name]] == pytest.approx(1.5, abs=0.25)
    for name in ("logit", "nearest", "log_frequency"):
        assert abs(fusion.linear[AT[name]]) < 0.15
    scores = total_score(fusion, evidence.values)
    assert np.abs(scores - probabilities).mean() < 0.02
    for low, high in ((0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9)):
        chosen = (scores >= low) & (scores < high)
        assert scores[chosen].mean() == pytest.approx(probabilities[chosen].mean(), abs=0.04)


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize(
    ("useful", "uses"),
    [
        ((), (False, False, False)),
        (("margin",), (True, False, False)),
        (("log_votes",), (False, True, False)),
        (("log_cooccurrence",), (False, False, True)),
    ],
)
def test_uses_the_parts_that_pay(useful: tuple[str, ...], uses: tuple[bool, bool, bool]) -> None:
    evidence, labels, _ = made_up(useful=useful)
    fusion = fit_fusion(evidence, labels)
    assert (fusion.uses_ranker, fusion.uses_neighbours, fusion.uses_cooccurrence) == uses
    for used, columns in zip(uses, (OF_RANKER, OF_NEIGHBOURS, OF_COOCCURRENCE), strict=True):
        places = [AT[name] for name in columns]
        assert bool(fusion.linear[places].any()) == used
        if fusion.trees is not None and not used:
            assert not np.isin(fusion.trees.columns, places).any()
    steps = {step.name: step.used for step in fusion.steps}
    assert list(steps) == ["dense model", "ranker", "trees", "neighbours", "co-occurrence"]
    assert [steps[name] for name in ("ranker", "neighbours", "co-occurrence")] == list(uses)


def test_neighbours_are_tried_with_trees_that_alone_did_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, _, _ = made_up(200, useful=())
    # Right is what has many votes and is in few texts.
    values = evidence.values
    labels = labelled(evidence, values[:, AT["log_votes"]] * values[:, AT["log_frequency"]] > 1.2)
    run = _Trial.run

    def without_first_trees(name: str, *args: Any, **options: Any) -> _Trial:
        trial = run(name, *args, **options)
        return replace(trial, metrics=trial.metrics - 100) if name == "trees" else trial

    monkeypatch.setattr(_Trial, "run", without_first_trees)
    fusion = fit_fusion(evidence, labels)
    assert [(step.name, step.used) for step in fusion.steps[2:4]] == [("trees", False), ("neighbours", True)]
    assert fusion.trees is not None
    assert np.isin(fusion.trees.columns, AT["log_votes"]).any()


def test_passes_over_parts_that_the_index_lacks() -> None:
    evidence, labels, _ = made_up(useful=())
    evidence.values[:, [AT[name] for name in (*OF_RANKER, *OF_NEIGHBOURS, *OF_COOCCURRENCE)]] = 0
    fusion = fit_fusion(evidence, labels)
    assert [step.name for step in fusion.steps] == ["dense model", "trees"]
    assert not fusion.uses_ranker
    assert not fusion.uses_neighbours


@pytest.mark.usefixtures("no_chance")
def test_trees_find_what_a_line_misses() -> None:
    evidence, _, _ = made_up(500, useful=())
    # Right is what has a large product of two columns.
    values = evidence.values
    right = (values[:, AT["margin"]] * values[:, AT["log_frequency"]] > 1.2) & (values[:, AT["found"]] > 0)
    fusion = fit_fusion(evidence, labelled(evidence, right))
    [step] = [step for step in fusion.steps if step.name == "trees"]
    assert step.used
    assert step.gain > 10
    assert fusion.trees is not None
    scores = total_score(fusion, values)
    assert scores[right].mean() > 0.7
    assert scores[~right].mean() < 0.03


def fit_interrupted_at_each_line() -> None:
    """Fits trees as often as LightGBM's Python part has lines to run, and one time more, that isn't interrupted."""
    evidence, labels, _ = made_up(20)
    pairs = Pairs.of(evidence, labels, 0)
    library = str(Path(lightgbm.__file__).parent)
    moment = 0
    while True:
        moment += 1
        lines = 0

        def at_line(frame: FrameType, event: str, _: object, moment: int = moment) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.startswith(library):
                return None
            lines += event == "line"
            if event == "line" and lines == moment:
                raise KeyboardInterrupt
            return at_line

        sys.settrace(at_line)
        try:
            fit_score(pairs, pairs.scored(True), (0, 1), rounds=1)
        except KeyboardInterrupt:
            continue
        finally:
            sys.settrace(None)
        if lines < moment:
            break
    assert lines > 500


def test_no_interruption_of_the_trees_ends_the_process() -> None:
    # LightGBM frees memory twice if it is interrupted while it copies a booster.
    command = [sys.executable, "-c", "import test_fusion; test_fusion.fit_interrupted_at_each_line()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_exported_trees_agree_with_the_library() -> None:
    evidence, labels, _ = made_up(200)
    pairs = Pairs.of(evidence, labels, 0)
    columns = (AT["log_path"], AT["log_dense"], AT["margin"], AT["log_votes"])
    score = fit_score(pairs, pairs.scored(True), columns, rounds=30)
    trees = exported(score)
    assert trees is not None
    assert len(trees.offsets) == 31
    # Values at the thresholds themselves, where rounding would show.
    values = np.repeat(evidence.values[:1], len(trees.columns), axis=0)
    inner = np.flatnonzero(trees.columns >= 0)
    values[inner, trees.columns[inner]] = trees.thresholds[inner]
    values = np.concatenate([values, evidence.values[:200]])
    linear = np.zeros(len(EVIDENCE))
    linear[list(columns)] = score.weights
    candidates = oracle_fusion.Candidates(np.zeros(len(values)), values)
    expected = sigmoid(score.staged(values, (30,))[:, 0])
    np.testing.assert_allclose(oracle_fusion.scores(candidates, linear, score.bias, trees), expected, atol=1e-6)
    stages = score.staged(values, (1, 7, 30))
    assert score.booster is not None
    used = values[:, columns]
    for rounds, stage in zip((1, 7, 30), stages.T, strict=True):
        added = score.booster.predict(used, num_iteration=rounds, raw_score=True)
        np.testing.assert_allclose(stage, score.linear(values) + added, atol=1e-9)


def test_an_index_takes_what_is_fitted_to_its_evidence() -> None:
    parts = oracle.random_parts(3, num_queries=120)
    made = oracle_fusion.random_fusion(parts, num_candidates=30)
    index, sparse = made.add_to(build(parts)), sp.csr_matrix(made.sparse)
    evidence = index.evidence(parts.queries, sparse)
    counts = np.diff(evidence.offsets)
    margin, count = evidence.values[:, AT["margin"]], evidence.values[:, AT["log_frequency"]]
    right = (margin > np.quantile(margin, 0.6)) & (np.abs(count - np.median(count)) < 0.4)
    text = np.repeat(np.arange(len(counts)), counts)
    labels = sp.csr_matrix((np.ones(right.sum()), (text[right], evidence.labels[right])), (120, index.num_labels))
    fusion = fit_fusion(evidence, labels)
    assert fusion.uses_ranker
    assert fusion.trees is not None
    found = index.with_fusion(fusion.linear, fusion.bias, fusion.trees).search(parts.queries, 5, sparse=sparse)
    for query, row in enumerate(found.scores):
        rows = slice(evidence.offsets[query], evidence.offsets[query + 1])
        scores = np.sort(total_score(fusion, evidence.values[rows]))[::-1][:5]
        np.testing.assert_allclose(row[: len(scores)], scores, atol=1e-4)


def test_same_bits_again_and_from_a_file(tmp_path: Path) -> None:
    evidence, labels, _ = made_up(150)
    fusion, again = fit_fusion(evidence, labels, seed=3), fit_fusion(evidence, labels, seed=3)
    fusion.save(tmp_path / "fusion.safetensors")
    loaded = Fusion.load(tmp_path / "fusion.safetensors")
    for other in (again, loaded):
        np.testing.assert_array_equal(other.linear, fusion.linear)
        assert (other.bias, other.uses_ranker, other.uses_neighbours, other.uses_cooccurrence) == (
            fusion.bias,
            fusion.uses_ranker,
            fusion.uses_neighbours,
            fusion.uses_cooccurrence,
        )
        assert other.steps == fusion.steps
        assert (other.trees is None) == (fusion.trees is None)
        for one, two in zip(other.trees or (), fusion.trees or (), strict=True):
            np.testing.assert_array_equal(one, two)
    assert loaded.lines("texts") == fusion.lines("texts")


@pytest.mark.parametrize("num_texts", [1, 2, 7, 50])
def test_few_texts(num_texts: int) -> None:
    evidence, labels, _ = made_up(num_texts)
    fusion = fit_fusion(evidence, labels)
    assert np.isfinite([*fusion.linear, fusion.bias]).all()
    order = np.argsort(-linear_score(fusion, evidence.values))
    assert len(order) == num_texts * 40


@pytest.mark.parametrize("kind", ["nothing right", "all right", "no texts", "no candidates"])
def test_nothing_to_learn_keeps_the_dense_ranking(kind: str) -> None:
    evidence, labels, _ = made_up(5)
    if kind == "nothing right":
        labels = sp.csr_matrix(labels.shape)
    elif kind == "all right":
        labels = sp.csr_matrix(np.ones(labels.shape))
    elif kind == "no texts":
        labels = sp.csr_matrix((0, NUM_LABELS))
        evidence = Evidence(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, len(EVIDENCE)), np.float32))
    else:
        evidence = Evidence(np.zeros(6, np.int64), np.zeros(0, np.int64), np.zeros((0, len(EVIDENCE)), np.float32))
    fusion = fit_fusion(evidence, labels)
    assert fusion.steps == ()
    assert fusion.trees is None
    values = np.random.default_rng(0).standard_normal((9, len(EVIDENCE)))
    np.testing.assert_array_equal(np.argsort(linear_score(fusion, values)), np.argsort(values[:, AT["log_dense"]]))


def test_one_right_pair() -> None:
    evidence, labels, _ = made_up(20)
    labels = sp.csr_matrix(([1.0], ([4], [evidence.labels[4 * 40 + 2]])), labels.shape)
    fusion = fit_fusion(evidence, labels)
    assert np.isfinite([*fusion.linear, fusion.bias]).all()


def test_labels_that_the_index_lacks_count_in_recall() -> None:
    evidence, labels, _ = made_up(100)
    unknown = sp.csr_matrix(np.ones((100, 3)))
    with_unknown = fit_fusion(evidence, sp.hstack([labels, unknown], format="csr")).steps[0].metrics
    without = fit_fusion(evidence, labels).steps[0].metrics
    assert with_unknown["P@1"] == without["P@1"]
    assert with_unknown["R@100"] < without["R@100"]


def test_metrics_against_a_loop() -> None:
    evidence, labels, _ = made_up(30)
    pairs = Pairs.of(evidence, labels, 0)
    scores = np.random.default_rng(1).integers(0, 9, len(pairs.texts)).astype(float)
    scores[::7] = -np.inf
    found = fusion_fit.text_metrics(pairs, scores)
    for text in range(30):
        rows = np.arange(text * 40, text * 40 + 40)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        rows = rows[np.isfinite(scores[rows])]
        true = set(labels[text].indices)
        hits = [int(label) in true for label in evidence.labels[rows]]
        expected = [100 * sum(hits[:k]) / k for k in (1, 3, 5)]
        expected += [100 * sum(hits[:k]) / max(len(true), 1) for k in (10, 100)]
        np.testing.assert_allclose(found[text], expected)


def test_candidates_that_are_learned_from() -> None:
    evidence, labels, _ = made_up(400, per_text=60)
    pairs = Pairs.of(evidence, labels, 0)
    place = np.arange(len(pairs.texts)) % 60
    assert set(pairs.weights) == {0.0, 1.0, 10.0}
    # Of each text 45 labels were found, and 15 only have votes.
    near = (place < 20) | (place >= 45) | pairs.right
    assert (pairs.weights[near] == 1).all()
    assert pairs.weights[~near].mean() == pytest.approx(1, abs=0.15)
    for fold in range(5):
        assert len(set(pairs.texts[pairs.folds == fold])) == 80


def test_labels_of_other_texts() -> None:
    evidence, labels, _ = made_up(5)
    with pytest.raises(DataError, match="evidence of 5 texts, but labels of 4"):
        fit_fusion(evidence, labels[:4])


def test_a_score_without_trees_has_none_to_export() -> None:
    assert exported(Score((0,), np.ones(1), 0.0, None)) is None
