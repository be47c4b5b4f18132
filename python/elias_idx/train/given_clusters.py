"""Clusters that the user gives, such as the chapters of a classification, instead of those made from features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from elias_idx.config import Config
from elias_idx.data.lines import rows_by_label
from elias_idx.errors import ConfigError, DataError
from elias_idx.train.clustering import Clusters, members

_SHOWN = 3


def read_clusters(path: str | PathLike[str]) -> dict[str, str]:
    """Reads JSON lines of `{"label": ..., "cluster": ...}`: the cluster of each label, by name.

    Raises:
        DataError: a line is no such object, or names a label again.
        OSError: the file can't be read.
    """
    return {row["label"]: row["cluster"] for _, row in rows_by_label(Path(path), "cluster")}


def clusters_of_labels(clusters: Mapping[str, str], label_names: Sequence[str]) -> Clusters:
    """The label ids of each cluster, ascending; the clusters by name. Labels that aren't trained are left out.

    Args:
        clusters: the cluster of each label, by name.
        label_names: the names of the labels 0 to L−1.

    Raises:
        DataError: a label has no cluster.
    """
    if missing := [name for name in label_names if name not in clusters]:
        shown = ", ".join(map(repr, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(f"{len(missing)} of the {len(label_names)} labels have no cluster ({shown}): give them one")
    names, cluster_of = np.unique([clusters[name] for name in label_names], return_inverse=True)
    return members(cluster_of, len(names))


def with_given_clusters(config: Config, num_clusters: int) -> Config:
    """The settings for so many given clusters.

    Raises:
        ConfigError: a setting says how clusters are made, or that there is another number of them.
    """
    for name in ("cluster_by", "recluster_epochs"):
        if getattr(config, name):
            raise ConfigError(f"{name} says how clusters are made, but they are given: leave one of both out")
    if config.num_clusters not in (None, num_clusters):
        raise ConfigError(f"num_clusters is {config.num_clusters}, but {num_clusters} clusters are given: leave it out")
    return replace(config, num_clusters=num_clusters)
