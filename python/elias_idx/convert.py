"""Models that were trained elsewhere, as indexes. C clusters, L labels, D and D' dimensions, κ entries a cluster.

A checkpoint is a file of named tensors, by a published model's symbols; it may lack the biases, which are zeros then,
and the label projection:

| name | shape | what it is |
|---|---|---|
| `W_C`, `b_C` | [C, D], [C] | cluster classifiers |
| `A_labels` | [C, κ] | the labels that each cluster leads to; −1 or L where there are fewer than κ |
| `A` | [C, κ] | the adjacency's logits of these entries |
| `W_L`, `b_L` | [L, D'], [L] | label classifiers |
| `T` | [D', D] | label projection |

An edge weighs a = min(1, β · softmax of its row's logits). Files with other names need a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elias_idx.errors import EliasIdxError, FormatError, MissingExtraError
from elias_idx.index import Index

if TYPE_CHECKING:
    import torch

_NAMES: dict[str, str] = {
    "cluster_weights": "W_C",
    "cluster_bias": "b_C",
    "adjacency_labels": "A_labels",
    "adjacency_logits": "A",
    "label_weights": "W_L",
    "label_bias": "b_L",
    "label_projection": "T",
}
_MAY_LACK = {"cluster_bias", "label_bias", "label_projection"}
# Of safetensors; other floats need torch.
_NUMPY_FLOATS = {"F64", "F32", "F16"}


def from_arrays(
    cluster_weights: npt.ArrayLike,
    cluster_bias: npt.ArrayLike | None,
    adjacency_labels: npt.ArrayLike,
    adjacency_logits: npt.ArrayLike | None,
    label_weights: npt.ArrayLike,
    label_bias: npt.ArrayLike | None,
    *,
    beta: float = 150.0,
    **options: Any,
) -> Index:
    """An index from a trained model's parts, the adjacency as lists of one length.

    `Index.build` takes an adjacency whose weights are ready, as a sparse matrix.

    Args:
        cluster_weights: W_C [C, D].
        cluster_bias: b_C [C]; None for zeros.
        adjacency_labels: whole numbers [C, κ]: the labels that each cluster leads to, −1 or L where a row has fewer.
        adjacency_logits: [C, κ]; None gives all edges the weight 1, as in stage 1.
        label_weights: W_L [L, D'].
        label_bias: b_L [L]; None for zeros.
        beta: β, the factor on the softmax of a row's logits.
        options: of `Index.build`: label_projection, alpha, label_names, dtype, path and so on.

    Raises:
        ValueError: shapes that don't fit, labels out of range, numbers that aren't finite; or see `Index.build`.
        TypeError: see `Index.build`.
        OSError: see `Index.build`.
    """
    labels = np.asarray(adjacency_labels)
    num_clusters, num_labels = (np.shape(weights)[0] for weights in (cluster_weights, label_weights))
    cluster_bias, label_bias = (
        np.zeros(count, np.float32) if bias is None else bias
        for bias, count in ((cluster_bias, num_clusters), (label_bias, num_labels))
    )
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
    checkpoint: str | PathLike[str],
    /,
    *,
    names: Mapping[str, str] | None = None,
    beta: float = 150.0,
    **options: Any,
) -> Index:
    """An index from a checkpoint of named tensors; see above for what it must hold.

    Args:
        checkpoint: a `.safetensors` or `.npz` file, or else one of `torch.save`. Tensors alone are read: no file's code
            is ever run. torch is needed for its own files, and for bfloat16 and smaller floats.
        names: what the file calls the parts, where that isn't the default: from parameters of `from_arrays` (and
            "label_projection") to names in the file.
        beta: β, the factor on the softmax of a row's logits.
        options: of `Index.build`: alpha, label_names, dtype, path and so on.

    Raises:
        FormatError: the file is damaged, holds something else than tensors, or lacks a part; the message names those
            that it has.
        MissingExtraError: reading it needs safetensors or torch, which is missing.
        ValueError: an unknown parameter in `names`; or see `from_arrays`.
        OSError: the file can't be read.
    """
    if unknown := sorted((names or {}).keys() - _NAMES.keys()):
        raise ValueError(f"names maps {', '.join(unknown)}, but the parts are {', '.join(_NAMES)}")
    path = Path(checkpoint)
    tensors = _read_tensors(path)
    parts: dict[str, Any] = {"cluster_bias": None, "label_bias": None}
    for part, name in (_NAMES | dict(names or {})).items():
        if name in tensors:
            parts[part] = tensors[name]
        elif part not in _MAY_LACK or part in (names or {}):
            raise FormatError(f"{path} has no tensor {name!r} for {part}; it has {', '.join(sorted(tensors))}")
    return from_arrays(**parts, beta=beta, **options)


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    path.open("rb").close()  # that it can't be opened is no damage
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    try:
        return readers.get(path.suffix, _read_torch)(path)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "train") from error
    except (EliasIdxError, MemoryError):
        raise
    except Exception as error:
        # Damage can come up as nearly any error. Not with torch's own words: they advise to load the file without the
        # check, which would run its code.
        raise FormatError(f"{path} is damaged or holds more than tensors: save the named tensors alone") from error


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        return {name: arrays[name] for name in arrays.files}


def _read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if all(kind in _NUMPY_FLOATS or not kind.startswith(("F", "BF")) for kind in kinds.values()):
            return {name: file.get_tensor(name) for name in kinds}
    from safetensors.torch import load_file

    return _as_arrays(path, load_file(path))


def _read_torch(path: Path) -> dict[str, npt.NDArray[Any]]:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}, no dictionary of tensors")
    if others := [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise FormatError(f"{path} must hold tensors alone, but has {', '.join(others)} too: save the state_dict alone")
    return _as_arrays(path, content)


def _as_arrays(path: Path, tensors: Mapping[Any, torch.Tensor]) -> dict[str, npt.NDArray[Any]]:
    import torch

    if sparse := [str(name) for name, tensor in tensors.items() if tensor.layout != torch.strided]:
        raise FormatError(f"{path} has sparse tensors, {', '.join(sparse)}: save them by `to_dense`")
    # NumPy has neither bfloat16 nor smaller floats.
    known = (torch.float64, torch.float32, torch.float16)
    return {
        str(name): (tensor if tensor.dtype in known or not tensor.is_floating_point() else tensor.float())
        .detach()
        .numpy()
        for name, tensor in tensors.items()
    }
