"""What it takes to get from texts to labels with a bag model, by phase.

    python benchmarks/text.py MODEL [SOURCE]

Lets the phases take turns on one thread and prints microseconds a text: the median of CPU time, which other processes
disturb less than the clock. Beside them stand scikit-learn's tf-idf of the same n-grams, without blocks' lengths, and
the embedding in SciPy and NumPy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from elias_idx.encoders import BagEncoder
from elias_idx.encoders.bag import LAYER_NORM_EPSILON
from elias_idx.features import Block, TextFeatures
from elias_idx.features.words import first_line
from elias_idx.model import load_single
from harness.texts import ICD10CM, load_texts


@click.command(context_settings={"show_default": True})
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("source", default=ICD10CM)
@click.option("--texts", default=2000, help="texts at most")
@click.option("--rounds", type=click.IntRange(1), default=9)
def main(model: Path, source: str, texts: int, rounds: int) -> None:
    """Measures each step from texts to labels."""
    data, loaded = load_texts(source), load_single(model)
    encoder, features, inputs = loaded.encoder, loaded.features, data.test[:texts]
    if not (isinstance(encoder, BagEncoder) and isinstance(features, TextFeatures)):
        raise click.UsageError("the model must be a bag of n-grams of texts")
    vectorizers = [peer_of(block, data.train.inputs) for block in features.blocks]
    sparse = features.transform(inputs, 1)
    embeddings = encoder.encode(inputs, 1, sparse=sparse)
    if not np.allclose(embeddings, plain_embeddings(encoder, sparse), atol=1e-4):
        raise click.ClickException("the embeddings differ from those of NumPy")
    variants = {
        "features": lambda: features.transform(inputs, 1),
        "embedding": lambda: encoder.encode(inputs, 1, sparse=sparse),
        "search, k = 10": lambda: loaded.index.search(
            embeddings, 10, num_threads=1, sparse=sparse if loaded.index.has_fusion else None
        ),
        "text to labels": lambda: loaded.predict(inputs, 10, num_threads=1),
        "scikit-learn: features": lambda: [peer(inputs) for peer in vectorizers],
        "SciPy and NumPy: embedding": lambda: plain_embeddings(encoder, sparse),
    }
    microseconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            run()
            microseconds[name].append((time.process_time() - start) / len(inputs) * 1e6)
    for name, values in microseconds.items():
        print(f"{name:28} {np.median(values):8.1f} µs a text")


def peer_of(block: Block, train: list[str]) -> Callable[[list[str]], object]:
    """scikit-learn's tf-idf of a block's n-grams."""
    words = {"analyzer": "word", "token_pattern": r"\w+"} if block.kind == "word" else {"analyzer": "char_wb"}
    peer = TfidfVectorizer(
        **words, ngram_range=block.ngrams, min_df=max(1, block.min_texts), sublinear_tf=True, dtype=np.float32
    )
    fields = (lambda texts: texts) if block.field == "text" else (lambda texts: list(map(first_line, texts)))
    peer.fit(fields(train))
    return lambda texts: peer.transform(fields(texts))


def plain_embeddings(encoder: BagEncoder, sparse: sp.csr_matrix) -> np.ndarray:
    """What the encoder makes of features [N, F], in NumPy: [N, D]."""
    bags = sparse @ encoder.embeddings
    centred = bags - bags.mean(1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(1, keepdims=True) + LAYER_NORM_EPSILON)
    normalised = centred / deviation * encoder.gain + encoder.bias
    return normalised * (encoder.length / np.maximum(np.linalg.norm(normalised, axis=1, keepdims=True), 1e-12))


if __name__ == "__main__":
    main()
