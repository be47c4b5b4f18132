"""Omikuji on the demo's data, with the same n-grams that the demo's encoder uses.

    pip install omikuji==0.5.2 && python benchmarks/icd10cm_peers.py

Trains on the demo's training texts, evaluates on its test texts and prints a line for the README's table.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import omikuji
import scipy.sparse as sp

from elias_idx.config import Config
from elias_idx.data import LabelVocabulary, Row, labels_by_name
from elias_idx.demo import icd10cm
from elias_idx.features import TextFeatures
from elias_idx.metrics import evaluate

_K = 100


@click.command()
@click.option("--num-threads", default=2, show_default=True)
@click.option("--dev", is_flag=True, help="evaluate on the training data's dev split instead of the test texts")
def main(num_threads: int, dev: bool) -> None:
    """Trains and evaluates Omikuji with its default settings."""
    data = icd10cm.load()
    train, test = data.split_dev() if dev else (data.train, data.test)
    features = TextFeatures(Config().blocks)
    labels, names = labels_by_name([row.labels for row in train])
    start = time.perf_counter()
    train_features = features.fit_transform([row.text for row in train])
    test_features = features.transform([row.text for row in test])
    model = _train(train_features, labels, num_threads)
    seconds = time.perf_counter() - start

    predicted = _predict(model, test_features)
    metrics = evaluate(predicted, _relevant(LabelVocabulary(names), test))
    shown = "  ".join(f"{name} {metrics[name]:.2f}" for name in ("P@1", "P@3", "P@5", "R@10", "R@100"))
    click.echo(f"Omikuji, {num_threads} threads: {shown}, trained in {seconds:.0f} s")


def _train(features: sp.csr_matrix, labels: sp.csr_matrix, num_threads: int) -> omikuji.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        with path.open("w", encoding="utf-8") as file:
            file.write(f"{features.shape[0]} {features.shape[1]} {labels.shape[1]}\n")
            file.writelines(_data_lines(features, labels))
        return omikuji.Model.train_on_data(str(path), n_threads=num_threads)


def _data_lines(features: sp.csr_matrix, labels: sp.csr_matrix) -> Iterator[str]:
    """The repository's text format: labels, then feature:value pairs."""
    for row in range(features.shape[0]):
        own = features[row]
        pairs = " ".join(f"{index}:{value:.6g}" for index, value in zip(own.indices, own.data, strict=True))
        yield f"{','.join(map(str, labels[row].indices))} {pairs}\n"


def _predict(model: omikuji.Model, features: sp.csr_matrix) -> np.ndarray:
    predicted = np.full((features.shape[0], _K), -1)
    for row in range(features.shape[0]):
        own = features[row]
        pairs = list(zip(own.indices.tolist(), own.data.tolist(), strict=True))
        found = [label for label, _ in model.predict(pairs, top_k=_K)]
        predicted[row, : len(found)] = found
    return predicted


def _relevant(vocabulary: LabelVocabulary, rows: Sequence[Row]) -> sp.csr_matrix:
    return vocabulary.renumber(*labels_by_name([row.labels for row in rows]))[0]


if __name__ == "__main__":
    main()
