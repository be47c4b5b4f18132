"""From the trained torch model to the index that serves it."""

from __future__ import annotations

from collections.abc import Sequence

from elias_idx.index import Index
from elias_idx.train.network import EliasNetwork


def export_index(network: EliasNetwork, label_names: Sequence[str], beam_size: int, shortlist_size: int) -> Index:
    """The network's classifiers and adjacency as an index in memory.

    Args:
        network: the trained model.
        label_names: one name for each of the L labels.
        beam_size: the index's default beam.
        shortlist_size: the index's default shortlist.
    """
    label_bias = network.label_classifiers.bias
    assert label_bias is not None
    return Index.build(
        network.clusters.weight.detach().cpu().numpy(),
        network.clusters.bias.detach().cpu().numpy(),
        network.adjacency.to_csr(),
        network.label_classifiers.weight.detach().float().cpu().numpy(),
        label_bias.detach().cpu().numpy(),
        alpha=network.alpha,
        beam_size=beam_size,
        shortlist_size=shortlist_size,
        label_names=label_names,
    )
