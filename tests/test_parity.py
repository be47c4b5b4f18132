"""Three implementations of the search held to each other: torch, Rust, and the oracle in NumPy.

The models are made in torch and exported, as training does it. `make parity` tries thousands of random ones at each
instruction set.
"""

import os
from collections.abc import Callable
from dataclasses import replace

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


NUM_RANDOM_MODELS = int(os.environ.get("ELIAS_IDX_PARITY_MODELS", "60"))


def random_model(rng: np.random.Generator) -> tuple[EliasNetwork, np.ndarray]:
    """A model of any shape and queries for it [Q, D]; in half of them either labels or clusters tie.

    What ties has small whole numbers, whose sums are the same in any order; where both had them, products of scores
    would be equal that are rounded differently. Logits are not so far apart that scores underflow: `MODELS` has such.
    """
    dim, num_labels, num_clusters = int(rng.integers(1, 70)), int(rng.integers(1, 90)), int(rng.integers(1, 40))
    sizes = rng.integers(0, min(num_labels, 25) + 1, num_clusters)
    rows = [rng.choice(num_labels, size, replace=False) for size in sizes]
    ties = rng.choice(["none", "none", "labels", "clusters"])
    scale = float(rng.choice([0.1, 1, 3]))
    logits = [scale * rng.standard_normal(size).astype(np.float32) for size in sizes]
    beta = float(rng.choice([0.5, 6, 1e6]))
    adjacency = Adjacency(rows, num_labels, logits if ties == "none" and rng.random() < 0.7 else None, beta)
    label_dim = None if ties != "none" or rng.random() < 0.5 else int(rng.integers(1, 40))
    alpha = float(rng.choice([1e-3, 1, 10, 1e6]))
    model = EliasNetwork(dim, adjacency, alpha=alpha, label_bias=0.0, label_dim=label_dim)

    def numbers(shape: tuple[int, ...], whole: bool) -> np.ndarray:
        return rng.integers(-1, 2, shape) if whole else scale * rng.standard_normal(shape)

    with torch.no_grad():
        for part, name in ((model.clusters, "clusters"), (model.label_classifiers, "labels")):
            for parameter in part.parameters():
                parameter.copy_(torch.from_numpy(numbers(parameter.shape, ties == name)))
    queries = numbers((int(rng.integers(1, 6)), dim), ties != "none")
    return model, (queries if ties != "none" else queries / np.sqrt(dim)).astype(np.float32)


@pytest.mark.parametrize("seed", range(NUM_RANDOM_MODELS))
def test_random_models(seed, tmp_path):
    rng = np.random.default_rng(seed)
    model, queries = random_model(rng)
    num_labels = model.adjacency.num_labels
    k, beam_size, shortlist_size = (int(size) for size in rng.integers(1, [110, 50, 110]))
    names = [f"label {label}" for label in range(num_labels)]
    index = export_index(model, names, beam_size, shortlist_size, tmp_path / "index")
    parts = parts_of(index, queries)
    in_torch = [tensor.numpy() for tensor in model.search(torch.from_numpy(queries), k, beam_size, shortlist_size)]
    in_numpy = oracle.search(parts, queries, k, beam_size, shortlist_size)
    oracle.assert_same_results((in_torch[0], in_torch[1]), in_numpy)

    index = index.quantize(str(rng.choice(["float32", "bfloat16", "float16"])), screen=bool(rng.random() < 0.5))
    parts = replace(parts, label_weights=index.label_rows(np.arange(num_labels)))
    allowed = [None if rng.random() < 0.3 else rng.random(num_labels) < rng.choice([0.05, 0.5]) for _ in queries]
    filters = [None if mask is None else index.label_filter(mask) for mask in allowed]
    for masks, given in ((None, None), (allowed, filters)):
        oracle.assert_same_results(
            index.search(queries, k, filter=given),
            oracle.search(parts, queries, k, beam_size, shortlist_size, masks),
            tolerance=tolerance_of(index),
        )
