"""What labels' own texts add to the start of training: each counts as so many more texts that have the label.

N texts, L labels, F features, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from elias_idx.train.clustering import ClusteringFeatures
from elias_idx.train.encoders import TrainableEncoder


def with_label_texts(
    labels: sp.csr_matrix,
    features: ClusteringFeatures,
    encoder: TrainableEncoder,
    texts: Sequence[str],
    weight: float,
) -> tuple[sp.csr_matrix, ClusteringFeatures]:
    """The labels and features that clusters are made of, with a row more for each label's own text.

    Args:
        labels: the training texts' labels, CSR [N, L].
        features: the training texts' features.
        encoder: which made them.
        texts: of the labels, [L]; empty where there is none.
        weight: what a label's own text counts beside a training text, which counts 1.

    Returns:
        Labels [N + L, L] and features of as many rows.
    """
    sparse, dense = features.sparse, features.dense
    if sparse is not None:
        sparse = sp.vstack([sparse, encoder.sparse_features_of(texts)], format="csr")
    if dense is not None:
        dense = np.concatenate([dense, encoder.finished().encode(texts)])
    own = sp.diags(weights_of(texts, weight), format="csr", dtype=np.float32)
    return sp.vstack([labels, own], format="csr"), ClusteringFeatures(sparse, dense)


def weights_of(texts: Sequence[str], weight: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What each label's text counts: nothing where there is none; float32 [L]."""
    return np.array([weight if text.strip() else 0 for text in texts], np.float32)
