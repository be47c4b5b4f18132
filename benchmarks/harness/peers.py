"""Other ways to predict labels from sparse features: trained, and asked for the best labels of test texts.

N training texts, F features, L labels, Q test texts, K labels predicted.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from elias_idx import EVIDENCE, Index

from .processes import Stopwatch
from .work import IntArray, K

_NEIGHBOURS = 100


@dataclass(frozen=True)
class Examples:
    """What a peer learns from and is asked about.

    Attributes:
        features: of the training texts, float32 CSR [N, F], rows of unit length.
        labels: CSR [N, L].
        test_features: CSR [Q, F].
        num_threads: CPU threads to use.
        pecos_python: the Python that has PECOS, which wants an older NumPy than others.
    """

    features: sp.csr_matrix
    labels: sp.csr_matrix
    test_features: sp.csr_matrix
    num_threads: int
    pecos_python: str


# Takes the examples and a stopwatch for "train" and "predict"; returns label ids [Q, K], best first, padded with −1.
Peer = Callable[[Examples, Stopwatch], IntArray]


def words() -> TfidfVectorizer:
    """tf-idf of words as scikit-learn has it, with sublinear term frequencies."""
    return TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)


def with_known_features(peer: Peer, examples: Examples, stopwatch: Stopwatch) -> tuple[IntArray, int, int]:
    """Runs a peer without the texts that have no feature, at which some stop with an error.

    Such a test text is given the most frequent labels.

    Returns:
        The predicted labels, and how many training and test texts have no feature.
    """
    trained = np.diff(examples.features.indptr) > 0
    asked = np.diff(examples.test_features.indptr) > 0
    frequent = np.argsort(-np.bincount(examples.labels.indices, minlength=examples.labels.shape[1]), kind="stable")[:K]
    predicted = np.tile(np.pad(frequent, (0, K - len(frequent)), constant_values=-1), (len(asked), 1))
    known = Examples(
        examples.features[trained],
        examples.labels[trained],
        examples.test_features[asked],
        examples.num_threads,
        examples.pecos_python,
    )
    predicted[asked] = peer(known, stopwatch)
    return predicted, int((~trained).sum()), int((~asked).sum())


def omikuji(examples: Examples, stopwatch: Stopwatch) -> IntArray:
    """Omikuji with its default settings."""
    import omikuji as library

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        _write_training_file(path, examples)
        with stopwatch.time("train"):
            model = library.Model.train_on_data(str(path), n_threads=examples.num_threads)
    predicted = np.full((examples.test_features.shape[0], K), -1)
    with stopwatch.time("predict"):
        model.init_prediction_thread_pool(examples.num_threads)
        model.densify_weights()
        for row, (columns, values) in enumerate(_rows(examples.test_features)):
            found = model.predict(list(zip(columns.tolist(), values.tolist(), strict=True)), top_k=K)
            predicted[row, : len(found)] = [label for label, _ in found]
    return predicted


def napkinxc(examples: Examples, stopwatch: Stopwatch) -> IntArray:
    """The probabilistic label tree of napkinXC with its default settings."""
    from napkinxc.models import PLT

    with tempfile.TemporaryDirectory() as folder:
        model = PLT(folder, threads=examples.num_threads, seed=0)
        with stopwatch.time("train"):
            model.fit(examples.features, _label_lists(examples.labels))
        with stopwatch.time("predict"):
            found = model.predict(examples.test_features, top_k=K)
    return _padded(found)


def pecos(examples: Examples, stopwatch: Stopwatch) -> IntArray:
    """PECOS's XR-Linear with negatives from teacher forcing and matching, beam 20, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("features", "labels", "test_features"):
            sp.save_npz(folder / f"{part}.npz", getattr(examples, part), compressed=False)
        script = str(Path(__file__).with_name("pecos_peer.py"))
        command = [examples.pecos_python, script, name, str(examples.num_threads), str(K)]
        for part in ("train", "predict"):
            with stopwatch.time(part):
                subprocess.run([*command, part], check=True)
        return _best(sp.load_npz(folder / "predicted.npz"))


def neighbours(examples: Examples, stopwatch: Stopwatch) -> IntArray:
    """Labels of the 100 nearest training texts, each of which votes with its cosine's third power.

    These are the neighbours that elias_idx has beside its dense model; here that model knows nothing.
    """
    num_labels, num_features = examples.labels.shape[1], examples.features.shape[1]
    with stopwatch.time("train"):
        index = _knowing_nothing(num_labels).with_evidence(
            num_features=num_features,
            num_candidates=min(K, num_labels),
            label_counts=np.zeros(num_labels, np.int64),
            neighbours=(examples.features, examples.labels),
            num_neighbours=_NEIGHBOURS,
        )
    with stopwatch.time("predict"):
        queries = np.zeros((examples.test_features.shape[0], 1), np.float32)
        evidence = index.evidence(queries, examples.test_features, num_threads=examples.num_threads)
        votes = evidence.values[:, EVIDENCE.index("vote_share")]
        scores = sp.csr_matrix((votes, evidence.labels, evidence.offsets), (len(queries), num_labels))
        scores.eliminate_zeros()
        return _best(scores)


def _knowing_nothing(num_labels: int) -> Index:
    """An index with one cluster, of all labels, whose scores are all the same."""
    every_label = (np.array([0, num_labels]), np.arange(num_labels), np.ones(num_labels, np.float32))
    zero = np.zeros((1, 1), np.float32)
    rows, bias = np.zeros((num_labels, 1), np.float32), np.zeros(num_labels, np.float32)
    return Index.build(
        zero, zero[0], every_label, rows, bias, alpha=1.0, beam_size=1, shortlist_size=min(K, num_labels)
    )


def one_vs_rest(examples: Examples, stopwatch: Stopwatch) -> IntArray:
    """A linear support vector machine for each label, against all training texts."""
    from napkinxc.models import BR

    with tempfile.TemporaryDirectory() as folder:
        model = BR(folder, threads=examples.num_threads, seed=0, loss="l2", liblinear_c=1)
        with stopwatch.time("train"):
            model.fit(examples.features, _label_lists(examples.labels))
        with stopwatch.time("predict"):
            found = model.predict(examples.test_features, top_k=K)
    return _padded(found)


def _write_training_file(path: Path, examples: Examples) -> None:
    """The extreme classification repository's text format: labels, then feature:value pairs."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{examples.features.shape[0]} {examples.features.shape[1]} {examples.labels.shape[1]}\n")
        for (labels, _), (columns, values) in zip(_rows(examples.labels), _rows(examples.features), strict=True):
            pairs = " ".join(map("{}:{:.6g}".format, columns.tolist(), values.tolist()))
            file.write(f"{','.join(map(str, labels))} {pairs}\n")


def _rows(matrix: sp.csr_matrix) -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
    """Columns and values of each row."""
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        yield matrix.indices[start:end], matrix.data[start:end]


def _label_lists(labels: sp.csr_matrix) -> list[list[int]]:
    return [columns.tolist() for columns, _ in _rows(labels)]


def _padded(found: list[list[int]]) -> IntArray:
    predicted = np.full((len(found), K), -1)
    for row, labels in enumerate(found):
        predicted[row, : len(labels)] = labels[:K]
    return predicted


def _best(scores: sp.csr_matrix) -> IntArray:
    """The labels with the highest scores of each row, equal ones in order, [Q, K], padded with −1."""
    scores.sort_indices()
    return _padded([columns[np.argsort(-values, kind="stable")[:K]].tolist() for columns, values in _rows(scores)])
