import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx import Model
from elias_idx.config import Config
from elias_idx.data import LabelText, TrainingSet
from elias_idx.errors import DataError
from elias_idx.train import train_model
from elias_idx.train.clustering import ClusteringFeatures, cluster_labels
from elias_idx.train.encoders import build_encoder
from elias_idx.train.label_texts import with_label_texts
from elias_idx.train.stage1 import start_stage1
from helpers_training import NGRAMS

# Each label has a text that says nothing; its own text alone tells what it is about.
TOPICS = ["apple pear plum", "hammer saw drill"]
LABELS = [f"label{number}" for number in range(8)]
OWN = [TOPICS[number % 2] for number in range(8)]


def silent_set():
    return TrainingSet(["something general"] * 8 + TOPICS, [[name] for name in LABELS] + [["other"]] * 2)


def with_texts(data):
    return data.with_label_texts(dict(zip(LABELS, map(LabelText, OWN), strict=True)))


CONFIG = Config(
    encoder="bag", dim=16, num_clusters=2, stage1_epochs=1, stage2_epochs=0, preset="fast", beta=4.0, **NGRAMS
)


def test_labels_are_clustered_by_their_own_texts():
    data = with_texts(silent_set())
    encoder = build_encoder(CONFIG, data.inputs)
    features = ClusteringFeatures(encoder.sparse_features)
    texts = data.label_texts.with_parents
    clusters = cluster_labels(*with_label_texts(data.labels, features, encoder, texts, 1.0), 2, seed=0)
    [by_topic] = [cluster for cluster in clusters if 0 in cluster]
    assert {0, 2, 4, 6} <= set(by_topic)
    assert not {1, 3, 5, 7} & set(by_topic)


def test_a_weight_of_zero_changes_nothing():
    data = with_texts(silent_set())
    encoder = build_encoder(CONFIG, data.inputs)
    features = ClusteringFeatures(encoder.sparse_features)
    clusters = [np.arange(4), np.arange(4, 9)]
    plain = start_stage1(encoder, data.labels, clusters, CONFIG)
    zero = Config(**{**vars(CONFIG), "label_text_weight": 0.0})
    ours = start_stage1(encoder, data.labels, clusters, zero, data.label_texts.with_parents)
    np.testing.assert_array_equal(weights(plain), weights(ours))
    labels, augmented = with_label_texts(data.labels, features, encoder, data.label_texts.with_parents, 0.0)
    assert cluster_names(cluster_labels(labels, augmented, 2, seed=0)) == cluster_names(
        cluster_labels(data.labels, features, 2, seed=0)
    )


def test_first_classifiers_lean_towards_the_labels_own_texts():
    data = with_texts(silent_set())
    encoder = build_encoder(CONFIG, data.inputs)
    trainee = start_stage1(encoder, data.labels, [np.arange(9)], CONFIG, data.label_texts.with_parents)
    own = encoder.finished().encode(TOPICS)
    closer = weights(trainee)[:8] @ own.T
    assert (closer.argmax(1) == np.arange(8) % 2).all()


def weights(trainee):
    return trainee.network.label_classifiers.weight.detach().numpy()


def cluster_names(clusters):
    return sorted(tuple(cluster.tolist()) for cluster in clusters)


def test_trains_with_label_texts(tmp_path):
    model = train_model(with_texts(silent_set()), tmp_path / "model", CONFIG)
    assert isinstance(model, Model)


def test_features_that_are_no_texts_have_no_label_texts(tmp_path):
    data = TrainingSet(sp.random(9, 5, 0.5, format="csr"), [[name] for name in [*LABELS, "other"]])
    with pytest.raises(DataError, match="leave them out"):
        train_model(with_texts(data), tmp_path / "model", CONFIG)
