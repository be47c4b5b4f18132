"""A small task that trains in a second, shared by the tests of training, models and the command line."""

import numpy as np

from elias_idx.config import Config

TINY = Config(
    dim=16,
    num_clusters=8,
    labels_per_cluster=20,
    stage1_epochs=3,
    stage2_epochs=2,
    batch_size=32,
    train_beam_size=3,
    train_shortlist_size=20,
    learning_rate=0.02,
    label_learning_rate=0.05,
    num_threads=1,
)


def topic_texts(num_topics=40, per_topic=12, seed=0):
    """(texts, labels): each text mixes words of its topic with common ones, and is labelled by topic and group."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for topic in range(num_topics):
        for _ in range(per_topic):
            own = rng.choice([f"topic{topic}x", f"subject{topic}y", f"matter{topic}z"], 2, replace=False)
            texts.append(" ".join([*own, *rng.choice(["the", "of", "and", "with", "for"], 3)]))
            labels.append([f"t{topic}", f"group{topic // 8}"])
    return texts, labels
