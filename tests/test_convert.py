"""Models trained elsewhere, as indexes, against the NumPy oracle."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import oracle
from elias_idx import FormatError
from elias_idx.convert import from_arrays, from_checkpoint
from elias_idx.errors import MissingExtraError
from helpers_index import tolerance_of

C, L, D, REDUCED, KAPPA = 8, 60, 12, 6, 15
BETA = 5.0


def checkpoint(seed=0, projection=True):
    """A made-up checkpoint, its lists of labels padded in both ways."""
    rng = np.random.default_rng(seed)
    label_dim = REDUCED if projection else D
    labels = np.array([rng.permutation(L)[:KAPPA] for _ in range(C)])
    labels[2, 10:] = -1
    labels[3, 4:] = L
    labels[4] = L
    tensors = {
        "W_C": rng.normal(size=(C, D)),
        "b_C": rng.normal(size=C),
        "A": 2 * rng.normal(size=(C, KAPPA)),
        "W_L": rng.normal(size=(L, label_dim)),
        "b_L": rng.normal(size=L),
        "T": rng.normal(size=(label_dim, D)),
    }
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    if not projection:
        del tensors["T"]
    return tensors | {"A_labels": labels}


def oracle_of(tensors, stage1=False):
    """The same model in the oracle's terms, its adjacency worked out entry by entry."""
    adjacency = np.zeros((C, L))
    for cluster in range(C):
        entries = [place for place, label in enumerate(tensors["A_labels"][cluster]) if 0 <= label < L]
        total = sum(np.exp(np.float64(tensors["A"][cluster, place])) for place in entries)
        for place in entries:
            weight = min(1.0, BETA * np.exp(np.float64(tensors["A"][cluster, place])) / total)
            adjacency[cluster, tensors["A_labels"][cluster, place]] = 1.0 if stage1 else weight
    return oracle.Parts(
        tensors["W_C"], tensors["b_C"], adjacency, tensors["W_L"], tensors["b_L"], tensors.get("T"), alpha=3.0
    )


def assert_finds_the_same(index, parts):
    queries = np.random.default_rng(9).normal(size=(20, D)).astype(np.float32)
    expected = oracle.search(parts, queries, 10, 3, 20)
    oracle.assert_same_results(index.search(queries, 10), expected, tolerance=tolerance_of(index))


OPTIONS = {"beta": BETA, "alpha": 3.0, "beam_size": 3, "shortlist_size": 20}


def save_npz(tensors, path):
    np.savez(path, **tensors)


def save_torch(tensors, path):
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def save_safetensors(tensors, path):
    save_file({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


SAVERS = {"model.npz": save_npz, "model.pt": save_torch, "model.safetensors": save_safetensors}


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("name", SAVERS)
def test_a_checkpoint_searches_like_the_oracle(tmp_path, name, projection):
    tensors = checkpoint(projection=projection)
    SAVERS[name](tensors, tmp_path / name)
    index = from_checkpoint(tmp_path / name, **OPTIONS)
    assert len(index.adjacency.indices) == (tensors["A_labels"] % L == tensors["A_labels"]).sum()
    assert_finds_the_same(index, oracle_of(tensors))


def test_tensors_may_have_other_names_and_dtypes(tmp_path):
    tensors = checkpoint()
    renamed = {f"net.{name}": torch.from_numpy(array) for name, array in tensors.items()}
    for name in ("net.W_L", "net.A"):
        renamed[name] = renamed[name].to(torch.bfloat16)
        tensors[name.removeprefix("net.")] = renamed[name].float().numpy()
    save_file(renamed, tmp_path / "model.safetensors")
    names = {
        "cluster_weights": "net.W_C",
        "cluster_bias": "net.b_C",
        "adjacency_labels": "net.A_labels",
        "adjacency_logits": "net.A",
        "label_weights": "net.W_L",
        "label_bias": "net.b_L",
        "label_projection": "net.T",
    }
    index = from_checkpoint(
        tmp_path / "model.safetensors", names=names, label_names=list(map(str, range(L))), **OPTIONS
    )
    assert_finds_the_same(index, oracle_of(tensors))
    assert index.names(np.array([5])).tolist() == ["5"]


def test_without_logits_all_edges_weigh_1():
    tensors = checkpoint()
    index = from_arrays(
        tensors["W_C"], tensors["b_C"], tensors["A_labels"], None, tensors["W_L"], tensors["b_L"],
        label_projection=tensors["T"], alpha=3.0, beam_size=3, shortlist_size=20,
    )  # fmt: skip
    assert (index.adjacency.data == 1).all()
    assert_finds_the_same(index, oracle_of(tensors, stage1=True))


def test_edges_that_weigh_nothing_are_left_out():
    tensors = checkpoint(projection=False)
    tensors["A"][0, 0] = 1000
    index = from_arrays(
        tensors["W_C"], tensors["b_C"], tensors["A_labels"], tensors["A"], tensors["W_L"], tensors["b_L"]
    )
    assert index.adjacency.indptr[1] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adjacency_labels": np.zeros((C, KAPPA))}, r"whole numbers \[C, κ\], got float64"),
        ({"adjacency_labels": np.full((C, KAPPA), L + 1)}, "adjacency_labels has 61, but there are 60 labels"),
        ({"adjacency_labels": np.full((C, KAPPA), -2)}, "adjacency_labels has -2"),
        ({"adjacency_labels": np.zeros((C, KAPPA), int)}, "duplicate|twice"),
        ({"adjacency_logits": np.zeros((C, KAPPA + 1))}, r"adjacency_logits must be \[8, 15\], got \[8, 16\]"),
        ({"adjacency_logits": np.full((C, KAPPA), np.nan)}, "adjacency_logits must be finite"),
        ({"beta": 0.0}, "beta must be a positive number"),
        ({"beta": np.nan}, "beta must be a positive number"),
    ],
)
def test_arrays_that_dont_fit(changes, message):
    tensors = checkpoint(projection=False)
    arguments = {
        "cluster_weights": tensors["W_C"],
        "cluster_bias": tensors["b_C"],
        "adjacency_labels": tensors["A_labels"],
        "adjacency_logits": tensors["A"],
        "label_weights": tensors["W_L"],
        "label_bias": tensors["b_L"],
    }
    with pytest.raises(ValueError, match=message):
        from_arrays(**(arguments | changes))


class Code:
    """What a file must not be able to run."""

    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"W_C": torch.ones(2), "epoch": 3}, "must hold tensors alone, but has epoch too"),
        ([torch.ones(2)], "holds a list, no dictionary of tensors"),
        ({"W_C": Code()}, "holds more than tensors"),
        (
            {"W_C": torch.ones(2), "other": torch.ones(2)},
            "has no tensor 'A_labels' for adjacency_labels; it has W_C, other",
        ),
    ],
)
def test_files_of_something_else(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(FormatError, match=message):
        from_checkpoint(tmp_path / "model.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", SAVERS)
def test_damaged_and_missing_files(tmp_path, name):
    SAVERS[name](checkpoint(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="is damaged"):
        from_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        from_checkpoint(tmp_path / "none" / name)


@pytest.mark.parametrize("name", SAVERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_anywhere_is_an_error_of_the_format_or_none(tmp_path, name, data):
    """Bytes that no check covers may change a number; nothing but the library's errors comes of the rest."""
    path = tmp_path / name
    tensors = {name: array for name, array in checkpoint().items() if name in ("b_C", "b_L")}
    SAVERS[name](tensors, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with pytest.raises(FormatError):  # of the other parts, if of none
        from_checkpoint(path)


def test_a_packed_array_that_is_damaged(tmp_path):
    np.savez_compressed(tmp_path / "model.npz", **checkpoint())
    content = bytearray((tmp_path / "model.npz").read_bytes())
    content[200:240] = bytes(40)
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(FormatError, match="is damaged"):
        from_checkpoint(tmp_path / "model.npz")


@pytest.mark.parametrize("name", SAVERS)
def test_biases_that_are_missing_are_zeros(tmp_path, name):
    tensors = checkpoint()
    for bias in ("b_C", "b_L"):
        tensors[bias] *= 0
    SAVERS[name]({part: array for part, array in tensors.items() if part not in ("b_C", "b_L")}, tmp_path / name)
    assert_finds_the_same(from_checkpoint(tmp_path / name, **OPTIONS), oracle_of(tensors))


def test_floats_of_eight_bits_are_read(tmp_path):
    tensors = checkpoint()
    content = {name: torch.from_numpy(array) for name, array in tensors.items()}
    content["W_L"] = content["W_L"].to(torch.float8_e4m3fn)
    tensors["W_L"] = content["W_L"].float().numpy()
    torch.save(content, tmp_path / "model.pt")
    save_file(content, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        assert_finds_the_same(from_checkpoint(tmp_path / name, **OPTIONS), oracle_of(tensors))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_tensors_are_refused_by_name(tmp_path):
    torch.save({"W_C": torch.eye(2), "A": torch.eye(2).to_sparse()}, tmp_path / "model.pt")
    with pytest.raises(FormatError, match="has sparse tensors, A: save them by `to_dense`"):
        from_checkpoint(tmp_path / "model.pt")


def test_only_files_of_torch_need_torch(tmp_path, monkeypatch):
    tensors = checkpoint()
    for name, save in SAVERS.items():
        save(tensors, tmp_path / name)
    for module in ("torch", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("model.npz", "model.safetensors"):
        assert_finds_the_same(from_checkpoint(tmp_path / name, **OPTIONS), oracle_of(tensors))
    with pytest.raises(MissingExtraError, match=r"elias_idx\[train\]"):
        from_checkpoint(tmp_path / "model.pt")


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "model.npz", W_C=np.array([Code()], dtype=object))
    with pytest.raises(FormatError, match="holds more than tensors"):
        from_checkpoint(tmp_path / "model.npz")


def test_names_of_parts_that_there_are_none_of(tmp_path):
    with pytest.raises(ValueError, match="names maps weights, but the parts are cluster_weights"):
        from_checkpoint(tmp_path / "model.npz", names={"weights": "W"})
    save_npz(checkpoint(projection=False), tmp_path / "model.npz")
    with pytest.raises(FormatError, match="has no tensor 'P' for label_projection"):
        from_checkpoint(tmp_path / "model.npz", names={"label_projection": "P"})
