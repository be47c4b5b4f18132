"""A trained model: an encoder and the index behind it, in one folder.

N inputs, L labels, D dimensions. The folder:

    model.json           what the model is; written last, so that it stands for the whole
    encoder/             the encoder's files
    index/               the index, which `Index.load` opens without the rest
    labels.safetensors   how many training texts each label has: for propensity-scored metrics
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import __version__, _core
from elias_idx._arrays import as_count
from elias_idx.data import Inputs, LabelVocabulary, checked_matrix, is_sparse, labels_by_name, num_rows
from elias_idx.encoders import Encoder, load_encoder
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.files import load_tensors, save_tensors
from elias_idx.index import Dtype, Index
from elias_idx.metrics import (
    canonical,
    evaluate,
    evaluate_groups,
    inverse_propensities,
    without_entries,
    without_excluded,
)
from elias_idx.results import LabelNames

FORMAT = "elias_idx_model"
FORMAT_VERSION = 1

_TEXTS_AT_ONCE = 16384


class Prediction(NamedTuple):
    """The labels found for each input, best first, without padding.

    Attributes:
        names: label names, one list an input.
        scores: their scores, in the same order.
    """

    names: list[list[str]]
    scores: list[list[float]]


class Evaluation(NamedTuple):
    """How well a model predicts a test set.

    Attributes:
        metrics: "P@1" and so on, in percent; see `elias_idx.metrics.evaluate`.
        num_texts: how many texts were evaluated.
        num_without_labels: how many of them have no label, or none that isn't excluded. Where pairs were excluded,
            these count as zeros in P@k, nDCG@k and R@k; else they count in no metric.
        unseen_labels: labels of the test set that no training text had, which can't be predicted.
        groups: the same for "head", "torso" and "tail" labels; see `elias_idx.metrics.evaluate_groups`.
    """

    metrics: dict[str, float]
    num_texts: int
    num_without_labels: int
    unseen_labels: list[str]
    groups: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Model:
    """An encoder and the index that searches its embeddings.

    Attributes:
        encoder: texts → embeddings.
        index: embeddings → labels; it has label names.
        label_counts: in how many training texts each label occurs, int64 [L].
        num_training_texts: how many there were.
        settings: the training configuration and a fingerprint of the data, for the record.
        path: the folder that the model was loaded from; None for one that was not.
        checksums: SHA-256 of that folder's files outside the index.
    """

    encoder: Encoder
    index: Index
    label_counts: npt.NDArray[np.int64]
    num_training_texts: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)

    def encode(self, texts: Inputs, num_threads: int | None = None) -> npt.NDArray[np.float32]:
        """The texts' embeddings, float32 [N, D].

        A model that was trained on embeddings or sparse features takes those instead of texts.

        Args:
            texts: N texts, or what else the model takes.
            num_threads: CPU threads at most; by default all that the process may use.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a sequence of strings; put a single text in a list")
        return self.encoder.encode(texts, None if num_threads is None else as_count("num_threads", num_threads))

    def predict(
        self,
        texts: Inputs,
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
    ) -> Prediction:
        """The k best labels of each text.

        Args:
            texts: N texts; embeddings [N, D] or sparse features [N, F] for a model that takes those.
            k: labels a text; fewer come back where fewer are reachable.
            beam_size: as in `Index.search`.
            shortlist_size: as in `Index.search`.
            num_threads: as in `Index.search`.
            filter: as in `Index.search`; e.g. the names of the labels to choose from.
            min_score: as in `Index.search`; labels with a lower score are left out.

        Raises:
            DataError: the texts are not what the model takes, or its index has no label names.
        """
        self._check_names()
        found = self.index.search(
            self.encode(texts, num_threads),
            # There is no padding here, so more labels than there are would only take memory.
            min(as_count("k", k), self.index.num_labels),
            beam_size=beam_size,
            shortlist_size=shortlist_size,
            num_threads=num_threads,
            filter=filter,
            min_score=min_score,
        )
        counts = (found.labels >= 0).sum(1)
        names = self.index.names(found.labels)
        return Prediction(
            [row[:count].tolist() for row, count in zip(names, counts, strict=True)],
            [row[:count].tolist() for row, count in zip(found.scores, counts, strict=True)],
        )

    def evaluate(
        self,
        texts: Inputs,
        labels: Sequence[Sequence[str]] | sp.csr_matrix,
        *,
        label_names: Sequence[str] | None = None,
        excluded: sp.csr_matrix | None = None,
        ks: Sequence[int] = (1, 3, 5),
        recall_ks: Sequence[int] = (10, 100),
        propensity: tuple[float, float] = (0.55, 1.5),
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
    ) -> Evaluation:
        """Searches the texts' labels and compares them to the true ones.

        Args:
            texts: N texts, or what else the model takes.
            labels: the names of each text's true labels; or, with `label_names`, a CSR matrix [N, L'] whose entries are
                the true labels. Those unseen in training count in the denominators.
            label_names: of the matrix' columns.
            excluded: pairs of a text and a label that count neither as found nor as missed, the non-zeros of a sparse
                matrix of the same shape, such as XMC data sets have in `filter_labels_*.txt`. With it, texts without
                labels count as zeros, as with the repository's tools.
            ks: cut-offs of precision and nDCG.
            recall_ks: cut-offs of recall.
            propensity: a and b of the propensity model; see `elias_idx.metrics.inverse_propensities`.
            beam_size: as in `Index.search`.
            shortlist_size: as in `Index.search`.
            num_threads: as in `Index.search`.

        Raises:
            DataError: labels, their names and texts don't fit, no text has a label that isn't excluded, or the model's
                index has no label names.
            ConfigError: there are no cut-offs, or a or b is not a positive number.
        """
        self._check_names()
        names: Sequence[str]
        if label_names is None:
            matrix, names = labels_by_name(labels)
        else:
            matrix, names = checked_matrix(labels, label_names), label_names
        if num_rows(texts) != matrix.shape[0]:
            raise DataError(f"there are {num_rows(texts)} texts, but labels for {matrix.shape[0]}")
        if not (cutoffs := (*ks, *recall_ks)):
            raise ConfigError("there is nothing to evaluate: ks and recall_ks are both empty")
        if excluded is not None:
            if label_names is None or excluded.shape != matrix.shape:
                raise DataError("excluded must be a matrix of the same shape as labels, which must be one too")
            excluded = canonical(excluded)
            matrix = without_entries(matrix, excluded)
            excluded, _ = self._vocabulary.renumber(excluded, names)
        if not matrix.nnz:
            raise DataError(
                "there is nothing to evaluate: no text has a label"
                + (" that isn't excluded" if excluded is not None else "")
            )
        relevant, unseen = self._vocabulary.renumber(matrix, names)
        counts = np.concatenate([self.label_counts, np.zeros(len(unseen), np.int64)])
        gains = inverse_propensities(counts, self.num_training_texts, *propensity)
        search = {"beam_size": beam_size, "shortlist_size": shortlist_size, "num_threads": num_threads}
        found = self._search_counted(texts, max(cutoffs), excluded, search)
        how: dict[str, Any] = {"ks": ks, "recall_ks": recall_ks, "all_queries": excluded is not None}
        metrics = evaluate(found, relevant, inverse_propensity=gains, **how)
        groups = evaluate_groups(found, relevant, counts, **how)
        without_labels = int((np.diff(relevant.indptr) == 0).sum())
        return Evaluation(metrics, matrix.shape[0], without_labels, unseen, groups)

    def _search_counted(
        self, texts: Inputs, k: int, excluded: sp.csr_matrix | None, search: Mapping[str, Any]
    ) -> npt.NDArray[np.int64]:
        """The best labels of each text that aren't excluded, [N, min(k, L)]; some thousand texts at a time."""
        k = min(k, self.index.num_labels)
        if is_sparse(texts):
            texts = texts.tocsr()  # other formats have no slices
        parts = [np.empty((0, k), np.int64)]
        for start in range(0, num_rows(texts), _TEXTS_AT_ONCE):
            embeddings = self.encode(texts[start : start + _TEXTS_AT_ONCE], search["num_threads"])
            out = None if excluded is None else excluded[start : start + len(embeddings)]
            # Every excluded label may stand among the best.
            more = 0 if out is None else int(np.diff(out.indptr).max())
            labels = self.index.search(embeddings, min(k + more, self.index.num_labels), **search).labels
            counted = labels if out is None else without_excluded(labels, out)
            padding = ((0, 0), (0, max(0, k - counted.shape[1])))
            parts.append(np.pad(counted[:, :k], padding, constant_values=-1))
        return np.concatenate(parts)

    @cached_property
    def _vocabulary(self) -> LabelVocabulary:
        return LabelVocabulary(self._check_names())

    def _check_names(self) -> LabelNames:
        """The label names, which an index need not have."""
        if self.index.label_names is None:
            raise DataError("this model's index has no label names, which predictions and evaluation need")
        return self.index.label_names

    def verify(self) -> None:
        """Recomputes the checksums of all files of a loaded model, its index's included.

        Raises:
            FormatError: a file is damaged or missing; which one is said.
            OSError: one can't be read.
        """
        try:
            for name, expected in self.checksums.items():
                if self.path is not None and _sha256(self.path / name) != expected:
                    raise FormatError(
                        f"{self.path / name} is damaged: its checksum is another one than when it was saved"
                    )
        except FileNotFoundError as error:
            raise FormatError(f"{self.path}: the model is damaged: {error}") from error
        self.index.verify()

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Writes the model's folder beside `path` and moves it there when it is whole.

        Raises:
            FileExistsError: there is something at `path` and `overwrite` is False.
            OSError: the folder can't be written; nothing is left behind.
        """
        self._save(Path(path).absolute(), overwrite, self.index.save)

    def quantize(
        self,
        dtype: Dtype,
        *,
        screen: bool = True,
        path: str | PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Model:
        """Makes the same model with its index's label classifiers in another dtype; see `Index.quantize`.

        Args:
            dtype: "float32", "bfloat16", "float16" or "int8".
            screen: whether 8-bit codes stand beside exact weights.
            path: a folder to write the new model to, from which it is loaded then; else it is in memory.
            overwrite: whether a model at `path` may be replaced.

        Raises:
            ValueError: as `Index.quantize`.
            OSError: as `save`.
        """
        if path is None:
            return replace(self, index=self.index.quantize(dtype, screen=screen), path=None, checksums={})
        self._save(
            Path(path).absolute(), overwrite, lambda folder: self.index.quantize(dtype, screen=screen, path=folder)
        )
        return Model.load(path)

    def _save(self, path: Path, overwrite: bool, write_index: Callable[[Path], object]) -> None:
        check_replaceable(path, overwrite)
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        try:
            partial.mkdir()
            self._write(partial, write_index)
            _core.replace_folder(os.fspath(partial), os.fspath(path), overwrite)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write(self, folder: Path, write_index: Callable[[Path], object]) -> None:
        (folder / "encoder").mkdir()
        self.encoder.save(folder / "encoder")
        write_index(folder / "index")
        save_tensors(folder / "labels.safetensors", {"counts": self.label_counts})
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": f"elias_idx {__version__}",
            "encoder": self.encoder.kind,
            "num_training_texts": self.num_training_texts,
            "settings": dict(self.settings),
            "required_features": [],
            "sha256": {
                str(path.relative_to(folder).as_posix()): _sha256(path)
                for path in sorted([*(folder / "encoder").iterdir(), folder / "labels.safetensors"])
            },
        }
        (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str], mmap: bool = True) -> Model:
        """Opens a model's folder.

        Args:
            path: the folder.
            mmap: whether the index is mapped instead of read into memory.

        Raises:
            FileNotFoundError: there is no such folder.
            FormatError: the folder is no model, is damaged, or comes from a newer version.
        """
        folder = Path(path).absolute()
        content = _read_description(folder)
        try:
            encoder = load_encoder(content["encoder"], folder / "encoder")
            counts = load_tensors(folder / "labels.safetensors")["counts"]
            if type(content["num_training_texts"]) is not int or content["num_training_texts"] < 1:
                raise ValueError(f"num_training_texts is {content['num_training_texts']!r}")
            index = Index.load(folder / "index", mmap=mmap)
            if (len(counts), encoder.dim) != (index.num_labels, index.dim):
                raise ValueError(
                    f"{len(counts)} label counts and an encoder of size {encoder.dim} stand beside an index "
                    f"of {index.num_labels} labels and size {index.dim}"
                )
            return cls(
                encoder, index, counts, content["num_training_texts"], content["settings"], folder, content["sha256"]
            )
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{folder}: the model is damaged: {error}") from error


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Raises FileExistsError if a model must not be written to `path`: only models are ever replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists: choose another path, or overwrite it")
    if not (path / "model.json").is_file():
        raise FileExistsError(f"{path} is no model, so it won't be overwritten: move it away first")
    strays = [entry.relative_to(path).as_posix() for entry in path.rglob("*") if not _is_part(entry.relative_to(path))]
    if strays:
        raise FileExistsError(f"{path} holds {', '.join(sorted(strays))} besides its model: move that away first")


def _is_part(path: Path) -> bool:
    """Whether a path within a model's folder may belong to a model."""
    match path.parts:
        case ("model.json" | "labels.safetensors" | "encoder" | "index",):
            return True
        case ("encoder" | "index", _):
            return path.suffix in {".json", ".safetensors"}
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError(f"there is no model at {folder}")
    try:
        content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FormatError(f"{folder} is no model: it has no model.json") from error
    except ValueError as error:
        raise FormatError(f"{folder}/model.json is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{folder}/model.json does not describe an elias_idx model")
    if content.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{folder} has model format {content.get('format_version')!r}, this elias_idx reads {FORMAT_VERSION}: "
            "upgrade elias_idx"
        )
    if unknown := content.get("required_features"):
        raise FormatError(f"{folder} needs {unknown}, which this elias_idx does not know: upgrade elias_idx")
    return content
