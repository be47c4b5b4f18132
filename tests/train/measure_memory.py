"""Prints what phases of a run take, as counted and as measured, in bytes; a process of its own, which a test runs."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from elias_idx.config import Config
from elias_idx.train.approximate_adjacency import approximate_adjacency
from elias_idx.train.auto import resolved_for_sizes
from elias_idx.train.clustering import ClusteringFeatures, cluster_labels
from elias_idx.train.encoders import build_encoder
from elias_idx.train.memory import memory_account
from elias_idx.train.model_sizes import ModelSizes
from elias_idx.train.stage1 import start_stage1
from elias_idx.train.stage2 import start_stage2

CLUSTERS, DIM, LABELS_PER_TEXT, FEATURES_PER_TEXT = 128, 128, 8, 20
CONFIG = Config(encoder="precomputed", num_clusters=CLUSTERS, num_threads=1)
# What is allocated in a phase and stays.
LASTING = {"start of stage 2": "from stage 2 on"}


def main():
    # Once for what is loaded at the first use.
    measure(size=1_000)
    print(json.dumps(measure(size=100_000)))


def measure(size):
    """Of so many texts and labels: (counted, measured) by phase."""
    random = np.random.default_rng(0)
    config = resolved_for_sizes(replace(CONFIG, labels_per_cluster=size // 12), size, size)
    labels, features = random_rows(random, size, LABELS_PER_TEXT), random_rows(random, size, FEATURES_PER_TEXT)
    embeddings = random.standard_normal((size, DIM), np.float32)
    account = memory_account(config, ModelSizes(size, size, labels.nnz, input_dim=DIM))
    # An encoder that has features and embeddings both.
    of_both = memory_account(
        replace(config, encoder="bag+transformer", transformer="any", cluster_by="both"),
        ModelSizes(size, size, labels.nnz, size, features.nnz, input_dim=DIM),
    )
    results = {}

    @contextmanager
    def measuring(phase, account=account):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
        before = status("VmRSS")
        yield
        spans = {phase, LASTING.get(phase)}
        counted = sum(part.num_bytes for part in account.parts if part.span in spans)
        results[phase] = counted, status("VmHWM") - before

    with measuring("clustering", of_both):
        clusters = cluster_labels(labels, ClusteringFeatures(features, embeddings), CLUSTERS, seed=0, num_threads=1)
    trainee = start_stage1(build_encoder(config, embeddings), labels, clusters, config)
    with measuring("between the stages"):
        pattern = approximate_adjacency(trainee, labels)
    with measuring("start of stage 2"):
        start_stage2(trainee, pattern, labels)
    return results


def random_rows(random, size, per_row):
    """CSR [size, size] with about so many entries a row."""
    columns = np.sort(random.integers(size, size=(size, per_row), dtype=np.int32), axis=1)
    values = random.random(columns.size, np.float32) + 0.5
    matrix = sp.csr_matrix((values, columns.ravel(), np.arange(size + 1) * per_row), (size, size))
    matrix.sum_duplicates()
    return matrix


def status(name):
    """Bytes of this process's memory, by the kernel's name for it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
