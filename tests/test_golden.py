"""Indexes of every version of the format, kept as they were written once, give the results of then from Python, too.

`rust/elias-idx/tests/golden.rs` reads the same ones. The model is one of the first version of model folders.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx import Index, Model

FIXTURES = Path(__file__).parent.parent / "rust" / "elias-idx" / "tests" / "fixtures"
GOLDEN = json.loads((FIXTURES / "format-1.json").read_text(encoding="utf-8"))
MODEL = Path(__file__).parent / "fixtures" / "model-1"


def assert_results(result, expected):
    np.testing.assert_array_equal(result.labels, expected["labels"])
    # Instruction sets add in different orders, and a screen's softmax is summed from codes.
    np.testing.assert_allclose(result.scores, expected["scores"], rtol=2e-3)


@pytest.mark.parametrize("name", GOLDEN["expected"])
@pytest.mark.parametrize("mmap", [True, False])
def test_indexes_of_version_1_give_the_results_of_then(name, mmap):
    index = Index.load(FIXTURES / name, mmap=mmap)
    index.verify()
    assert index.label_names[1] == "näme 1"
    queries = np.array(GOLDEN["queries"], np.float32)
    options = {size: GOLDEN[size] for size in ("k", "beam_size", "shortlist_size")}
    expected = GOLDEN["expected"][name]
    assert_results(index.search(queries, **options), expected["search"])
    if "fused" in expected:
        values, columns, offsets = (np.array(GOLDEN["sparse"][part]) for part in ("values", "columns", "offsets"))
        sparse = sp.csr_matrix((values.astype(np.float32), columns, offsets), shape=(len(queries), index.num_features))
        assert_results(index.search(queries, **options, sparse=sparse), expected["fused"])


def test_a_model_of_version_1_gives_the_results_of_then():
    model = Model.load(MODEL)
    model.verify()
    assert model.initial_clusters is None, "the first models don't tell"
    expected = json.loads(MODEL.with_suffix(".json").read_text(encoding="utf-8"))
    found = model.predict(list(expected), k=2)
    for names, scores, wanted in zip(found.names, found.scores, expected.values(), strict=True):
        assert names == [label for label, _ in wanted]
        np.testing.assert_allclose(scores, [score for _, score in wanted], rtol=2e-3)
