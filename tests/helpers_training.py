"""A small task that trains in a second, shared by the tests of training, models and the command line."""

import numpy as np
import scipy.sparse as sp

from elias_idx.config import Config

NGRAMS = {
    "word_ngrams": (1, 2),
    "char_ngrams": (3, 5),
    "title_word_ngrams": (0, 0),
    "title_char_ngrams": (0, 0),
    "min_word_texts": 1,
    "min_phrase_texts": 1,
    "min_char_texts": 2,
    "phrase_weight": 1.0,
}

TINY = Config(
    preset="fast",
    dim=16,
    num_clusters=8,
    labels_per_cluster=20,
    stage1_epochs=3,
    stage2_epochs=2,
    batch_size=32,
    train_beam_size=3,
    train_shortlist_size=20,
    learning_rate=0.05,
    label_learning_rate=0.05,
    beam_size=20,
    shortlist_size=2000,
    num_threads=1,
    **NGRAMS,
)

_OWN = ("topic", "subject", "matter")


def topic_texts(num_topics=40, per_topic=12, seed=0):
    """(texts, labels): each text mixes words of its topic with common ones, and is labelled by topic and group."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for topic in range(num_topics):
        for _ in range(per_topic):
            names = [f"{kind}{topic}{letter}" for kind, letter in zip(_OWN, "xyz", strict=True)]
            own = rng.choice(names, 2, replace=False)
            texts.append(" ".join([*own, *rng.choice(["the", "of", "and", "with", "for"], 3)]))
            labels.append([f"t{topic}", f"group{topic // 8}"])
    return texts, labels


def topic_features(seed=0):
    """(features, labels) like `topic_texts`: counts of words as a CSR matrix [N, 125]."""
    texts, labels = topic_texts(seed=seed)
    words = [f"{kind}{topic}{letter}" for topic in range(40) for kind, letter in zip(_OWN, "xyz", strict=True)]
    column = {word: number for number, word in enumerate([*words, "the", "of", "and", "with", "for"])}
    columns = [[column[word] for word in text.split()] for text in texts]
    indptr = np.cumsum([0, *map(len, columns)])
    features = sp.csr_matrix((np.ones(indptr[-1]), np.concatenate(columns), indptr), shape=(len(texts), len(column)))
    features.sum_duplicates()
    return features, labels
