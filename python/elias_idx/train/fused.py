"""The training step's work on labels and n-grams by the compiled core, for CPUs: each row is visited once.

Same results as `losses.label_loss` and `sparse_ops.sparse_product`. Q queries, C clusters, D dimensions (D' of
label classifiers), R rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elias_idx import _core
from elias_idx.train.losses import LossSettings
from elias_idx.train.network import EliasNetwork
from elias_idx.train.ragged import Ragged
from elias_idx.train.row_table import RowGradient, RowTable
from elias_idx.train.sparse_ops import sparse_product

_Mode = Literal["evaluate", "collect", "apply"]


def label_loss(
    network: EliasNetwork,
    projected: Tensor,
    cluster_scores: Tensor,
    beam: Tensor,
    positives: Ragged,
    settings: LossSettings,
) -> Tensor:
    """What `losses.label_loss` computes, with its gradients in the same go.

    With gradients enabled, label classifiers and adjacency logits are updated right here if their tables are
    `immediate`, else their gradients are left in the tables. So the loss must be back-propagated as it is.

    Args:
        network: all behind the encoder.
        projected: `network.project` of the embeddings, [Q, D'].
        cluster_scores: s_c, [Q, C].
        beam: cluster ids, [Q, B], padded with −1.
        positives: the queries' labels and their relevance, [Q, L].
        settings: numbers.
    """
    mode: _Mode = "evaluate"
    if torch.is_grad_enabled():
        mode = "apply" if network.label_classifiers.immediate else "collect"
    loss: Tensor = _LabelLoss.apply(projected, cluster_scores, network, beam, positives, settings, mode)
    return loss


def bag_product(matrix: Ragged, table: RowTable) -> Tensor:
    """`matrix @ table.weight`: [Q, R] times [R, D] gives [Q, D]; `backward` may update the table."""
    if table.weight.device.type != "cpu":
        return sparse_product(matrix, table)
    result: Tensor = _BagProduct.apply(table.weight, table, matrix)
    return result


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        cluster_scores: Tensor,
        network: EliasNetwork,
        beam: Tensor,
        positives: Ragged,
        settings: LossSettings,
        mode: _Mode,
    ) -> Tensor:
        adjacency, classifiers = network.adjacency, network.label_classifiers
        loss, by_projected, by_cluster, by_classifiers, by_logits = network.label_step.run(
            (projected.contiguous().numpy(), cluster_scores.contiguous().numpy(), beam.contiguous().numpy()),
            _arrays(positives),
            (
                adjacency.labels.numpy(),
                adjacency.lengths.numpy(),
                adjacency.label_indptr.numpy(),
                adjacency.label_slots.numpy(),
            ),
            None if adjacency.logits is None else (adjacency.logits.arrays(), adjacency.beta),
            classifiers.arrays(),
            (settings.shortlist_size, settings.path_loss_weight, settings.divisor, settings.skip_below),
            mode,
            torch.get_num_threads(),
        )
        if mode == "collect":
            classifiers.gradients.append(_row_gradient(by_classifiers, classifiers))
            if adjacency.logits is not None:
                adjacency.logits.gradients.append(_row_gradient(by_logits, adjacency.logits))
        if mode != "evaluate":
            ctx.by_projected = torch.from_numpy(by_projected).view_as(projected)
            ctx.by_cluster = torch.from_numpy(by_cluster).view_as(cluster_scores)
        return projected.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient * ctx.by_projected, gradient * ctx.by_cluster, None, None, None, None, None


class _BagProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, table: RowTable, matrix: Ragged) -> Tensor:
        ctx.table, ctx.matrix = table, matrix
        bags = torch.empty(len(matrix.indptr) - 1, weight.shape[1])
        _core.bag_product(_arrays(matrix), weight.detach().numpy(), bags.numpy(), torch.get_num_threads())
        return bags

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        table: RowTable = ctx.table
        found = _core.bag_gradient(
            _arrays(ctx.matrix), gradient.contiguous().numpy(), table.arrays(), table.immediate, torch.get_num_threads()
        )
        if not table.immediate:
            table.gradients.append(_row_gradient(found, table))
        return None, None, None


def _arrays(matrix: Ragged) -> tuple[Any, Any, Any]:
    assert matrix.values is not None
    return matrix.indptr.numpy(), matrix.indices.numpy(), matrix.values.numpy()


def _row_gradient(arrays: Any, table: RowTable) -> RowGradient:
    rows, weight, bias = (torch.from_numpy(array) for array in arrays)
    return RowGradient(rows, weight, None if table.bias is None else bias)
