"""Which labels go together."""

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx.train import cooccurrence
from elias_idx.train.cooccurrence import label_cooccurrence


def random_labels() -> sp.csr_matrix:
    """80 texts and 30 labels, one of them without texts."""
    has = np.random.default_rng(0).random((80, 30)) < 0.15
    has[:, 7] = False
    return sp.csr_matrix(has, dtype=np.float32)


@pytest.mark.parametrize("pairs_at_once", [1, 50, 1 << 25])
def test_shares_of_the_texts_with_a_label(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    monkeypatch.setattr(cooccurrence, "_PAIRS_AT_ONCE", pairs_at_once)
    labels = random_labels()
    has = labels.toarray() > 0
    expected = np.zeros((30, 30))
    for one in range(30):
        for other in range(30):
            if one != other and has[:, one].any():
                expected[one, other] = has[has[:, one], other].mean()
    found = label_cooccurrence(labels)
    assert found.dtype == np.float32
    assert found.has_sorted_indices
    assert (found.data > 0).all()
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_keeps_the_largest_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels()
    whole = label_cooccurrence(labels).toarray()
    monkeypatch.setattr(cooccurrence, "COMPANIONS", 3)
    found = label_cooccurrence(labels).toarray()
    for row, own in zip(whole, found, strict=True):
        largest = np.argsort(-row, kind="stable")[:3]
        np.testing.assert_array_equal(np.flatnonzero(own), np.sort(largest[row[largest] > 0]))
        np.testing.assert_array_equal(own[own > 0], row[own > 0])


def test_texts_with_one_label_each_tell_nothing() -> None:
    assert label_cooccurrence(sp.identity(5, format="csr")).nnz == 0
