"""From the trained torch model to the index that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from elias_idx.index import Index
from elias_idx.train.network import EliasNetwork


def export_index(
    network: EliasNetwork, label_names: Sequence[str], beam_size: int, shortlist_size: int, path: Path
) -> Index:
    """The network's classifiers and adjacency as an index, written block by block and mapped.

    Args:
        network: the trained model.
        label_names: one name for each of the L labels.
        beam_size: the index's default beam.
        shortlist_size: the index's default shortlist.
        path: the index's folder; an index that is there is replaced.
    """
    label_bias = network.label_classifiers.bias
    assert label_bias is not None
    projection = network.label_projection
    return Index.build(
        network.clusters.weight.detach().cpu().numpy(),
        network.clusters.bias.detach().cpu().numpy(),
        network.adjacency.to_csr(),
        _Float32Rows(network.label_classifiers.weight.detach()),  # type: ignore[arg-type]
        label_bias.detach().cpu().numpy(),
        label_projection=None if projection is None else projection.weight.detach().cpu().numpy(),
        alpha=network.alpha,
        beam_size=beam_size,
        shortlist_size=shortlist_size,
        label_names=label_names,
        path=path,
        overwrite=True,
    )


@dataclass(frozen=True)
class _Float32Rows:
    """A tensor of any device and float type, of which an index reads some rows at a time."""

    tensor: Tensor
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        return self.tensor[rows].float().cpu().numpy()
