"""The accuracy benchmark's arithmetic, and that the README has the table of its newest results."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.metrics import evaluate
from harness.accuracy_report import with_table
from harness.bootstrap import METRICS, intervals, metrics_of_texts, permutation_p
from harness.peers import Examples, neighbours, with_known_features
from harness.processes import Stopwatch
from harness.texts import load_texts, near_duplicates
from harness.work import K

ROOT = Path(__file__).parents[1]


def test_averages_over_texts_are_the_librarys_metrics():
    random = np.random.default_rng(0)
    relevant = sp.random(50, 200, 0.05, format="csr", rng=random)
    predicted = np.argsort(random.random((50, 200)), axis=1)[:, :120]
    predicted[:, 100:] = -1
    predicted[3, 2:] = -1
    expected = evaluate(predicted, relevant)
    metrics = metrics_of_texts(predicted, relevant)
    without_labels = np.diff(relevant.indptr) == 0
    assert np.array_equal(np.isnan(metrics).all(1), without_labels)
    np.testing.assert_allclose(metrics[~without_labels].mean(0), [expected[name] for name in METRICS])


def test_intervals_are_those_of_the_normal_distribution_for_many_texts():
    random = np.random.default_rng(1)
    metrics = random.normal([10, 20], [1, 5], (4000, 2))
    expected = metrics.mean(0) + np.outer([-1.96, 1.96], metrics.std(0) / np.sqrt(4000))
    np.testing.assert_allclose(intervals(metrics), expected, atol=0.02)


def test_permutations_tell_equal_from_different():
    random = np.random.default_rng(2)
    noise = random.normal(size=500)
    chance, certain = noise - noise.mean() + 0.02, noise + 1
    p = permutation_p(np.stack([np.zeros(500), chance, certain], 1))
    assert p[0] == 1
    # Of a mean of 0.02 with a standard error of 0.045.
    assert 0.5 < p[1] < 0.8
    assert p[2] < 0.001


def test_near_duplicates_agree_in_their_first_characters():
    long = "Über die Wärmeleitung in dünnen Schichten: " + "x" * 90
    train = [long + " first ending", "short text"]
    test = [long.upper() + " another ending", "Short – TEXT!", "short text too", "y" + long, ""]
    assert near_duplicates(train, test).tolist() == [True, True, False, False, False]


def test_texts_without_features_get_the_most_frequent_labels():
    features = sp.csr_matrix(np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.float32))
    labels = sp.csr_matrix(np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 0]]))
    asked = sp.csr_matrix(np.array([[0, 0], [1, 0]], np.float32))
    predicted, without, asked_without = with_known_features(
        neighbours, Examples(features, labels, asked, 1, "python"), Stopwatch()
    )
    assert (without, asked_without) == (1, 1)
    assert predicted[:, :4].tolist() == [[2, 1, 0, -1], [0, 2, -1, -1]]


def test_neighbours_vote_with_their_cosines():
    random = np.random.default_rng(3)
    rows = random.random((300, 40)) * (random.random((300, 40)) < 0.2) + np.eye(300, 40)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    labels = random.random((300, 60)) < 0.1
    asked = rows[:20]
    predicted = neighbours(
        Examples(sp.csr_matrix(rows), sp.csr_matrix(labels), sp.csr_matrix(asked), 1, "python"), Stopwatch()
    )
    cosines = asked.astype(np.float64) @ rows.T
    cosines[cosines < np.sort(cosines, axis=1)[:, -100:][:, :1]] = 0
    votes = cosines**3 @ labels
    assert predicted.shape == (20, K)
    assert predicted[:, :5].tolist() == np.argsort(-votes, axis=1)[:, :5].tolist()


def test_a_folder_is_read_with_labels_that_training_lacks(tmp_path):
    rows = {"train": [("a b", ["x", "y"]), ("c", ["y"])], "dev": [("a", ["y", "new"]), ("d", [])]}
    for name, contents in rows.items():
        lines = (json.dumps({"text": text, "labels": labels}) for text, labels in contents)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = load_texts(str(tmp_path))
    assert (texts.name, texts.split, list(texts.test)) == (tmp_path.name, "dev", ["a", "d"])
    assert texts.relevant.toarray().astype(bool).tolist() == [[False, True, True], [False] * 3]
    assert texts.label_counts.tolist() == [1, 2, 0]
    (tmp_path / "dev.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="neither"):
        load_texts(str(tmp_path))


def test_the_readme_has_the_newest_results():
    newest = max((ROOT / "benchmarks" / "results").glob("accuracy-*.json"))
    results = json.loads(newest.read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(readme, results) == readme, "run python benchmarks/accuracy.py table"
