"""Three implementations of the search held to each other: torch, Rust, and the oracle in NumPy.

The models are made in torch and exported, as training does it.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import oracle
from elias_idx import Index
from elias_idx.train.export import export_index
from elias_idx.train.network import Adjacency, EliasNetwork
from helpers_index import tolerance_of

NUM_LABELS, NUM_CLUSTERS, DIM, NUM_QUERIES = 60, 9, 12, 8


def network(
    rows: list[list[int]], seed: int, *, learned: bool = True, beta: float = 6.0, label_dim: int | None = None
) -> EliasNetwork:
    """A random model over the given cluster rows."""
    torch.manual_seed(seed)
    arrays = [np.array(row, np.int64) for row in rows]
    logits = [torch.randn(len(row)).numpy() for row in rows] if learned else None
    adjacency = Adjacency(arrays, NUM_LABELS, logits, beta)
    model = EliasNetwork(DIM, adjacency, alpha=10.0, label_bias=0.0, label_dim=label_dim)
    with torch.no_grad():
        model.label_classifiers.weight.normal_()
        model.label_classifiers.bias.normal_()
    return model


def overlapping_rows(seed: int) -> list[list[int]]:
    """Rows that share labels, with an empty one and with labels that no row has."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, *rng.integers(2, 25, NUM_CLUSTERS - 2)]
    return [rng.choice(NUM_LABELS - 7, size, replace=False).tolist() for size in sizes]


def partition_rows() -> list[list[int]]:
    return [row.tolist() for row in np.array_split(np.arange(NUM_LABELS), NUM_CLUSTERS)]


def changed(model: EliasNetwork, change: Callable[[EliasNetwork], object]) -> EliasNetwork:
    with torch.no_grad():
        change(model)
    return model


def one_score(model: EliasNetwork) -> None:
    for tensor in (
        model.clusters.weight,
        model.clusters.bias,
        model.label_classifiers.weight,
        model.label_classifiers.bias,
    ):
        tensor.zero_()


MODELS = {
    **{f"random {seed}": lambda seed=seed: network(overlapping_rows(seed), seed) for seed in range(20)},
    "label projection": lambda: network(overlapping_rows(2), 0, label_dim=5),
    "partition": lambda: network(partition_rows(), 0, learned=False),
    "duplicate paths of equal weight": lambda: network(overlapping_rows(3), 0, learned=False),
    "every label in every cluster": lambda: network([list(range(NUM_LABELS))] * NUM_CLUSTERS, 0, learned=False),
    "all weights clamped": lambda: network(overlapping_rows(4), 0, beta=1e6),
    "no edges": lambda: network([[]] * NUM_CLUSTERS, 0, learned=False),
    "ties everywhere": lambda: changed(network(overlapping_rows(5), 0, learned=False), one_score),
    "saturated softmax": lambda: changed(network(overlapping_rows(6), 0), lambda m: m.clusters.bias.mul_(1000)),
    "cluster scores underflow": lambda: changed(network(overlapping_rows(7), 0), lambda m: m.clusters.weight.mul_(500)),
    "label scores underflow": lambda: changed(
        network(overlapping_rows(8), 0), lambda m: m.label_classifiers.bias.fill_(-500)
    ),
    "certain labels": lambda: changed(network(overlapping_rows(9), 0), lambda m: m.label_classifiers.bias.fill_(500)),
}


def parts_of(index: Index, queries: np.ndarray) -> oracle.Parts:
    dense = np.zeros((index.num_clusters, index.num_labels), np.float32)
    indptr, indices, data = index.adjacency
    dense[np.repeat(np.arange(index.num_clusters), np.diff(indptr)), indices] = data
    return oracle.Parts(
        index.cluster_weights,
        index.cluster_bias,
        dense,
        index.label_weights,
        index.label_bias,
        index.label_projection,
        index.alpha,
        queries,
    )


@pytest.mark.parametrize(("beam_size", "shortlist_size", "k"), [(1, 1, 1), (3, 10, 5), (9, 60, 60), (50, 500, 100)])
@pytest.mark.parametrize("name", MODELS)
def test_torch_rust_and_oracle_agree(name, beam_size, shortlist_size, k, tmp_path):
    model = MODELS[name]()
    queries = torch.randn(NUM_QUERIES, DIM)
    names = [f"label {label}" for label in range(NUM_LABELS)]
    exported = export_index(model, names, beam_size, shortlist_size, tmp_path / "index")
    in_torch = tuple(tensor.numpy() for tensor in model.search(queries, k, beam_size, shortlist_size))
    in_numpy = oracle.search(parts_of(exported, queries.numpy()), queries.numpy(), k, beam_size, shortlist_size)
    oracle.assert_same_results(in_torch, in_numpy)
    # Two roundings lie between torch and Rust. What ties is still for the oracle to say.
    torch_as_expected = in_numpy._replace(ids=in_torch[0], scores=in_torch[1], rounding=2 * in_numpy.rounding)
    for index in (exported, exported.quantize("float32", screen=False)):
        in_rust = index.search(queries.numpy(), k)
        oracle.assert_same_results(in_rust, in_numpy, tolerance=tolerance_of(index))
        oracle.assert_same_results(in_rust, torch_as_expected, tolerance=2 * tolerance_of(index))
