"""Models that were trained elsewhere, as indexes. C clusters, L labels, D and D' dimensions, κ entries a cluster.

A checkpoint is a file of named tensors, by a published model's symbols:

| name | shape | what it is |
|---|---|---|
| `W_C`, `b_C` | [C, D], [C] | cluster classifiers |
| `A_labels` | [C, κ] | the labels that each cluster leads to; −1 or L where there are fewer than κ |
| `A` | [C, κ] | the adjacency's logits of these entries |
| `W_L`, `b_L` | [L, D'], [L] | label classifiers |
| `T` | [D', D] | label projection, which a model may lack |

An edge weighs a = min(1, β · softmax of its row's logits). Files with other names need a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from elias_idx.errors import FormatError
from elias_idx.index import Index

_NAMES: dict[str, str] = {
    "cluster_weights": "W_C",
    "cluster_bias": "b_C",
    "adjacency_labels": "A_labels",
    "adjacency_logits": "A",
    "label_weights": "W_L",
    "label_bias": "b_L",
    "label_projection": "T",
}
_MAY_LACK = "label_projection"


def from_arrays(
    cluster_weights: npt.ArrayLike,
    cluster_bias: npt.ArrayLike,
    adjacency_labels: npt.ArrayLike,
    adjacency_logits: npt.ArrayLike | None,
    label_weights: npt.ArrayLike,
    label_bias: npt.ArrayLike,
    *,
    beta: float = 150.0,
    **options: Any,
) -> Index:
    """An index from a trained model's parts, the adjacency as lists of one length.

    `Index.build` takes an adjacency whose weights are ready, as a sparse matrix.

    Args:
        cluster_weights: W_C [C, D].
        cluster_bias: b_C [C].
        adjacency_labels: whole numbers [C, κ]: the labels that each cluster leads to, −1 or L where a row has fewer.
        adjacency_logits: [C, κ]; None gives all edges the weight 1, as in stage 1.
        label_weights: W_L [L, D'].
        label_bias: b_L [L].
        beta: β, the factor on the softmax of a row's logits.
        options: of `Index.build`: label_projection, alpha, label_names, dtype, path and so on.

    Raises:
        ValueError: shapes that don't fit, labels out of range, numbers that aren't finite; or see `Index.build`.
        TypeError: see `Index.build`.
        OSError: see `Index.build`.
    """
    labels = np.asarray(adjacency_labels)
    num_labels = len(np.asarray(label_bias))
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"adjacency_labels must be whole numbers [C, κ], got {labels.dtype} of {list(labels.shape)}")
    if len(outside := labels[(labels < -1) | (labels > num_labels)]):
        raise ValueError(f"adjacency_labels has {outside[0]}, but there are {num_labels} labels")
    present = (labels >= 0) & (labels < num_labels)
    if adjacency_logits is None:
        weights = np.ones(labels.shape, np.float32)
    else:
        weights = _edge_weights(np.asarray(adjacency_logits), present, beta)
    # An edge that weighs nothing leads nowhere.
    kept = present & (weights > 0)
    indptr = np.concatenate([[0], kept.sum(1).cumsum()])
    adjacency = (indptr, labels[kept].astype(np.int64), weights[kept])
    return Index.build(cluster_weights, cluster_bias, adjacency, label_weights, label_bias, **options)


def _edge_weights(logits: npt.NDArray[Any], present: npt.NDArray[np.bool_], beta: float) -> npt.NDArray[np.float32]:
    """min(1, β · softmax over a row's present entries), [C, κ]."""
    if logits.shape != present.shape:
        raise ValueError(f"adjacency_logits must be {list(present.shape)}, got {list(logits.shape)}")
    if not np.isfinite(logits[present]).all():
        raise ValueError("adjacency_logits must be finite numbers")
    if not 0 < beta < np.inf:
        raise ValueError(f"beta must be a positive number, got {beta}")
    masked = np.where(present, logits.astype(np.float64), -np.inf)
    # A row without entries has no largest one.
    largest = masked.max(1, keepdims=True, initial=np.finfo(np.float64).min)
    powers = np.exp(masked - largest)
    softmax = powers / np.maximum(powers.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return np.minimum(1, beta * softmax).astype(np.float32)


def from_checkpoint(
    path: str | PathLike[str],
    *,
    names: Mapping[str, str] | None = None,
    beta: float = 150.0,
    **options: Any,
) -> Index:
    """An index from a checkpoint of named tensors; see above for what it must hold.

    Args:
        path: a `.safetensors` or `.npz` file, or else one of `torch.save`. Tensors alone are read: no file's code
            is ever run.
        names: what the file calls the parts, where that isn't the default: from parameters of `from_arrays` (and
            "label_projection") to names in the file.
        beta: β, the factor on the softmax of a row's logits.
        options: of `Index.build`: alpha, label_names, dtype, path and so on.

    Raises:
        FormatError: the file is damaged, holds something else than tensors, or lacks a part; the message names those
            that it has.
        ValueError: an unknown parameter in `names`; or see `from_arrays`.
        OSError: the file can't be read.
    """
    if unknown := sorted((names or {}).keys() - _NAMES.keys()):
        raise ValueError(f"names maps {', '.join(unknown)}, but the parts are {', '.join(_NAMES)}")
    path = Path(path)
    tensors = _read_tensors(path)
    parts: dict[str, Any] = {}
    for part, name in (_NAMES | dict(names or {})).items():
        if name in tensors:
            parts[part] = tensors[name]
        elif part != _MAY_LACK or part in (names or {}):
            raise FormatError(f"{path} has no tensor {name!r} for {part}; it has {', '.join(sorted(tensors))}")
    return from_arrays(**parts, beta=beta, **options)


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    return _read_npz(path) if path.suffix == ".npz" else _read_torch(path)


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise FormatError(f"{path} is no .npz file of plain arrays: {error}") from error


def _read_torch(path: Path) -> dict[str, npt.NDArray[Any]]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        # Not with torch's own words: they advise to load it without the check, which would run the file's code.
        raise FormatError(f"{path} is damaged or holds more than tensors: save its state_dict alone") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}, no dictionary of tensors")
    if others := [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise FormatError(f"{path} must hold tensors alone, but has {', '.join(others)} too: save the state_dict alone")
    # NumPy has no bfloat16.
    return {
        str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in content.items()
    }
