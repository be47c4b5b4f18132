"""A trained model: an encoder and the index behind it, in one folder.

N inputs, L labels, D dimensions. The folder:

    model.json           what the model is; written last, so that it stands for the whole
    encoder/             the encoder's files
    features/            sparse features for the index's fusion, of an encoder that has none of its own
    index/               the index, which `Index.load` opens without the rest
    labels.safetensors   how many training texts each label has, for propensity-scored metrics, and its initial cluster
    calibration.safetensors   what makes probabilities of scores, if that was fitted
    README.md            the model card, of one that was saved by `save_pretrained`
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import __version__, _core, calibration
from elias_idx._arrays import as_count
from elias_idx._wording import counted, shortened
from elias_idx.calibration import Calibration
from elias_idx.data import Inputs
from elias_idx.encoders import Encoder, load_encoder
from elias_idx.errors import FormatError, MissingExtraError
from elias_idx.explanation import Explanation, explain
from elias_idx.features import Features, load_features
from elias_idx.files import is_plain_path, load_tensors, save_tensors, written_to
from elias_idx.index import Dtype, Index
from elias_idx.predictor import Predictor, check_inputs
from elias_idx.results import SearchResult

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11, for type checkers alone

    from elias_idx.ensemble import Ensemble

FORMAT = "elias_idx_model"
FORMAT_VERSION = 1

# Of the features that a model may require of its reader: its folder holds models, see `elias_idx.ensemble`.
ENSEMBLE = "ensemble"


@dataclass(frozen=True, repr=False)
class Model(Predictor):
    """An encoder and the index that searches its embeddings.

    Attributes:
        encoder: texts → embeddings.
        index: embeddings → labels; it has label names.
        label_counts: in how many training texts each label occurs, int64 [L].
        num_training_texts: how many there were.
        settings: the training configuration and a fingerprint of the data, for the record.
        path: the folder that the model was loaded from; None for one that was not.
        checksums: SHA-256 of that folder's files outside the index.
        own_features: texts → the sparse features that the index's fusion takes, of an encoder that has none.
        report: what training came to: which epochs were kept, and how good the steps were on held-out texts.
        calibration: what makes probabilities of its scores; None before `calibrate`.
        initial_clusters: the cluster that each label began in, before training learned which others lead to it; int32
            [L], -1 for labels that were added later. None for a model that doesn't tell.
    """

    encoder: Encoder
    index: Index
    label_counts: npt.NDArray[np.int64]
    num_training_texts: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    own_features: Features | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    initial_clusters: npt.NDArray[np.int32] | None = None

    @property
    def features(self) -> Features | None:
        """What turns inputs into the sparse features that the index's fusion takes; None if there are none."""
        return self.encoder.features or self.own_features

    def encode(self, texts: Inputs, num_threads: int | None = None) -> npt.NDArray[np.float32]:
        """The texts' embeddings, float32 [N, D].

        A model that was trained on embeddings or sparse features takes those instead of texts.

        Args:
            texts: N texts, or what else the model takes.
            num_threads: CPU threads at most; by default all that the process may use.
        """
        return self.vectorise(texts, num_threads, fusion=False)[0]

    def vectorise(
        self, texts: Inputs, num_threads: int | None = None, *, fusion: bool = True
    ) -> tuple[npt.NDArray[np.float32], sp.csr_matrix | None]:
        """What the index searches for: the texts' embeddings [N, D] and, for its fusion, their features [N, F].

        Args:
            texts: N texts, or what else the model takes.
            num_threads: CPU threads at most; by default all that the process may use.
            fusion: whether the features are wanted; None takes their place, also where the index has no fusion.
        """
        check_inputs(texts)
        threads = None if num_threads is None else as_count("num_threads", num_threads)
        if not (fusion and self.index.has_fusion and self.features is not None):
            return self.encoder.encode(texts, threads), None
        sparse = self.features.transform(texts, threads)
        return self.encoder.encode(texts, threads, sparse=sparse if self.encoder.features else None), sparse

    @property
    def takes_embeddings(self) -> bool:
        """Whether it takes embeddings instead of texts or features."""
        return self.encoder.kind == "precomputed"

    @property
    def _index(self) -> Index:
        return self.index

    @property
    def _has_fusion(self) -> bool:
        return self.index.has_fusion

    def with_calibration(self, fitted: Calibration | None) -> Self:
        """A copy with another calibration, or without one."""
        return replace(self, calibration=fitted)

    def with_defaults(
        self,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_candidates: int | None = None,
    ) -> Self:
        """Makes the same model with other sizes that it searches with unless told otherwise.

        Args and errors are those of `Index.with_defaults`. A calibration stays, although it was fitted to the scores of
        the sizes before, which differ a little: calibrate again.
        """
        return replace(self, index=self.index.with_defaults(beam_size, shortlist_size, num_candidates), path=None)

    def explain(
        self,
        text: Any,
        labels: Any,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
    ) -> tuple[Explanation, ...]:
        """Says why `predict` gives labels to a text, or why not: paths, classifier, and what the fusion adds up.

        Args:
            text: one text; a row of embeddings [1, D] or features [1, F] for a model that takes those.
            labels: ids or names of the labels to explain, predicted or not.
            beam_size: as in `predict`.
            shortlist_size: as in `predict`.

        Returns:
            An explanation for each label, in their order, of a prediction of at most as many labels as the fusion has
            candidates; printed, it is a sentence. Parts add up to the score but for rounding.

        Raises:
            DataError: the text is not what the model takes, or there are several.
            ValueError: an id or a name that no label has, sizes below 1.
            TypeError: labels that are neither ids nor names.
        """
        return explain(self, text, labels, beam_size, shortlist_size)

    def _queries(
        self, texts: Inputs, num_threads: int | None, fusion: bool
    ) -> tuple[npt.NDArray[np.float32], sp.csr_matrix | None]:
        return self.vectorise(texts, num_threads, fusion=fusion)

    def _search_for(
        self, queries: tuple[npt.NDArray[np.float32], sp.csr_matrix | None], k: int, **options: Any
    ) -> SearchResult:
        embeddings, sparse = queries
        return self.index.search(embeddings, k, sparse=sparse, **options)

    def __repr__(self) -> str:
        where = "" if self.path is None else f", path={shortened(self.path)!r}"
        sizes = f"{counted(self.index.num_labels, 'label')}, {self.encoder.kind}"
        return f"<elias_idx.Model: {sizes}{', fusion' if self.index.has_fusion else ''}{where}>"

    def verify(self) -> None:
        """Recomputes the checksums of all files of a loaded model, its index's included.

        Raises:
            FormatError: a file is damaged or missing; which one is said.
            OSError: one can't be read.
        """
        if self.path is not None:
            check_files(self.path, self.checksums)
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
            return replace(self, index=self.index.quantize(dtype, screen=screen), path=None)
        self._save(
            Path(path).absolute(), overwrite, lambda folder: self.index.quantize(dtype, screen=screen, path=folder)
        )
        return load_single(path)

    def remove_labels(self, labels: Any) -> Model:
        """Makes the same model without some labels; see `Index.remove_labels`. The calibration stays.

        Args:
            labels: names or ids of the labels to remove, or a boolean mask [L].

        Raises:
            ValueError: as `Index.remove_labels`.
            TypeError: likewise.
        """
        ids = self.index._label_ids(labels)
        index = self.index.remove_labels(ids)
        clusters = None if self.initial_clusters is None else np.delete(self.initial_clusters, ids)
        counts = np.delete(self.label_counts, ids)
        return replace(self, index=index, label_counts=counts, initial_clusters=clusters, path=None)

    def add_labels(
        self,
        texts_by_label: Mapping[str, Inputs],
        *,
        other_texts: Inputs | None = None,
        label_texts: Mapping[str, str] | None = None,
        num_threads: int | None = None,
    ) -> Model:
        """Makes the same model with more labels, without training again; see docs/labels.md for how good that is.

        New labels hang on the clusters that their examples reach, have classifiers that tell these from similar texts,
        and examples vote for them. All that is known of other labels stays as it is, and so do encoder, fusion and
        calibration. Needs the extra `elias_idx[train]`.

        Args:
            texts_by_label: one or more examples of each new label, by its name: texts, or what else the model takes.
                A text may stand under several labels.
            other_texts: texts without any of the new labels, such as those that the model was trained on: what the new
                labels are told from. Without them that is the other new labels' examples alone.
            label_texts: what new labels are called, for a model that was trained with labels' texts.
            num_threads: CPU threads at most; by default all that the process may use.

        Raises:
            DataError: there are no labels, one is known, or one has no example; the texts are not what the model takes.
            MissingExtraError: packages for training are missing.
        """
        try:
            from elias_idx.train.new_labels import with_new_labels
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "train") from error
        return with_new_labels(self, texts_by_label, other_texts, label_texts or {}, num_threads)

    def _save(self, path: Path, overwrite: bool, write_index: Callable[[Path], object]) -> None:
        with new_folder(path, overwrite) as folder:
            self._write(folder, write_index)

    def _write(self, folder: Path, write_index: Callable[[Path], object]) -> None:
        (folder / "encoder").mkdir()
        self.encoder.save(folder / "encoder")
        write_index(folder / "index")
        if self.own_features is not None:
            (folder / "features").mkdir()
            self.own_features.save(folder / "features")
        labels: dict[str, npt.NDArray[Any]] = {"counts": self.label_counts}
        if self.initial_clusters is not None:
            if not _are_clusters(self.initial_clusters, self.index):
                raise ValueError("initial_clusters must be int32 [L], clusters of the index or -1")
            labels["initial_clusters"] = self.initial_clusters
        save_tensors(folder / "labels.safetensors", labels)
        if self.calibration is not None:
            self.calibration.save(folder)
        files = sorted([*folder.glob("encoder/*"), *folder.glob("features/*"), *folder.glob("*.safetensors")])
        content = {
            "encoder": self.encoder.kind,
            "num_training_texts": self.num_training_texts,
            "settings": dict(self.settings),
            "report": dict(self.report),
            "required_features": [],
        }
        write_description(folder, content, files)

    @classmethod
    def load(cls, path: str | PathLike[str], mmap: bool = True) -> Model | Ensemble:
        """Opens a folder of a model, or of an ensemble, which predicts and evaluates in the same way.

        Args:
            path: the folder.
            mmap: whether indexes are mapped instead of read into memory.

        Raises:
            FileNotFoundError: there is no such folder.
            FormatError: the folder is no model, is damaged, or comes from a newer version.
        """
        folder = Path(path).absolute()
        content = _read_description(folder)
        if content.get("required_features") == [ENSEMBLE]:
            from elias_idx.ensemble import Ensemble

            return Ensemble._open(folder, content, mmap)
        return cls._open(folder, content, mmap)

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        token: str | None = None,
        mmap: bool = True,
    ) -> Model | Ensemble:
        """Opens a folder, or a repository of the Hugging Face Hub, which is downloaded first unless it is in the cache.

        Downloading needs the extra `elias_idx[hub]`. No code of a repository is run.

        Args:
            name: the folder; if there is none of that name, the repository, as in "someone/some-model".
            revision: branch, tag or commit of the repository.
            cache_dir: the Hub's cache, by default that of huggingface_hub.
            token: of a private repository; by default the one that `hf auth login` has kept.
            mmap: as in `load`.

        Raises:
            FileNotFoundError: the name is neither.
            FormatError: as `load`.
            MissingExtraError: there is no such folder, and huggingface_hub is missing.
            OSError: there is no such repository, or the Hub can't be reached.
        """
        from elias_idx.hub import local_folder

        return cls.load(local_folder(name, revision=revision, cache_dir=cache_dir, token=token), mmap)

    @classmethod
    def _open(cls, folder: Path, content: Mapping[str, Any], mmap: bool) -> Model:
        try:
            encoder = load_encoder(content["encoder"], folder / "encoder")
            labels = load_tensors(folder / "labels.safetensors")
            counts, clusters = labels["counts"], labels.get("initial_clusters")
            if type(content["num_training_texts"]) is not int or content["num_training_texts"] < 1:
                raise ValueError(f"num_training_texts is {content['num_training_texts']!r}")
            index = Index.load(folder / "index", mmap=mmap)
            if (len(counts), encoder.dim) != (index.num_labels, index.dim):
                raise ValueError(
                    f"{len(counts)} label counts and an encoder of size {encoder.dim} stand beside an index "
                    f"of {index.num_labels} labels and size {index.dim}"
                )
            own_features = load_features(folder / "features") if (folder / "features").exists() else None
            model = cls(
                encoder, index, counts, content["num_training_texts"], content["settings"], folder, content["sha256"],
                own_features, content.get("report", {}), Calibration.load(folder), clusters,
            )  # fmt: skip
            if clusters is not None and not _are_clusters(clusters, index):
                raise ValueError("its initial_clusters are no clusters of the index's labels")
            if index.has_fusion and (model.features is None or model.features.num_features != index.num_features):
                raise ValueError(f"the index's fusion takes {index.num_features} sparse features, the model has others")
            return model
        except (FileNotFoundError, KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise FormatError(f"{folder}: the model is damaged: {reason}") from error


def _are_clusters(clusters: npt.NDArray[Any], index: Index) -> bool:
    """Whether an array holds a cluster of the index, or -1, for each of its labels."""
    if clusters.dtype != np.int32 or clusters.shape != (index.num_labels,):
        return False
    return -1 <= int(clusters.min()) <= int(clusters.max()) < index.num_clusters


def load_single(path: str | PathLike[str], mmap: bool = True) -> Model:
    """`Model.load` of a folder that must hold one model.

    Raises:
        FileNotFoundError: there is no such folder.
        FormatError: as `Model.load`, or it holds an ensemble.
    """
    model = Model.load(path, mmap)
    if not isinstance(model, Model):
        raise FormatError(f"{path} is an ensemble, not a single model: these lie in {Path(path) / 'members'}")
    return model


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a folder to write a model into; it is moved to `path`, an absolute path, when the block ends well.

    Raises:
        FileExistsError: there is something at `path` that must not be replaced.
        OSError: the folder can't be written; nothing is left behind.
    """
    check_replaceable(path, overwrite)
    staging = _core.Staging(path, overwrite)
    try:
        with written_to(path):
            yield staging.path
        staging.publish()
    finally:
        staging.remove()


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Raises FileExistsError if a model must not be written to `path`: only models are ever replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists: choose another path, or overwrite it (--overwrite)")
    if not (path / "model.json").is_file():
        raise FileExistsError(f"{path} is no model, so it won't be overwritten: move it away first")
    strays = [entry.relative_to(path).as_posix() for entry in path.rglob("*") if not _is_part(entry.relative_to(path))]
    if strays:
        raise FileExistsError(f"{path} holds {', '.join(sorted(strays))} besides its model: move that away first")


def _is_part(path: Path) -> bool:
    """Whether a path within a model's folder may belong to a model."""
    match path.parts:
        case ("model.json" | "labels.safetensors" | calibration.FILE | "README.md" | "encoder" | "features" | "index",):
            return True
        case ("encoder" | "features" | "index", _):
            return path.suffix in {".json", ".safetensors"}
        case ("members", *rest):
            return len(rest) < 2 or _is_part(Path(*rest[1:]))
    return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# Stands in place of the checksum of `model.json` in the text that it is of.
_NO_CHECKSUM = 64 * "0"
_CHECKSUM = re.compile(rb'{\n  "checksum": "([0-9a-f]{64})"')


def check_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compares `model.json` and the files that it names to their SHA-256.

    Raises:
        FormatError: a file is damaged or missing; which one is said.
        OSError: one can't be read.
    """
    if strange := [name for name in checksums if not is_plain_path(name)]:
        raise FormatError(
            f"{folder} is damaged: its model.json names {strange[0]!r}, which is no file within the folder"
        )
    try:
        if not _is_whole((folder / "model.json").read_bytes()):
            raise FormatError(f"{folder}/model.json is damaged: its checksum is another one than when it was saved")
        for name, expected in checksums.items():
            if sha256(folder / name) != expected:
                raise FormatError(f"{folder / name} is damaged: its checksum is another one than when it was saved")
    except FileNotFoundError as error:
        raise FormatError(f"{folder}: the model is damaged: {error}") from error


def _is_whole(description: bytes) -> bool:
    """Whether a `model.json` is as it was written, by its own checksum, which those of the first models lack."""
    if description.startswith(b'{\n  "format": '):
        return True
    found = _CHECKSUM.match(description)
    if found is None:
        return False
    text = description[: found.start(1)] + _NO_CHECKSUM.encode() + description[found.end(1) :]
    return hashlib.sha256(text).hexdigest().encode() == found.group(1)


def write_description(folder: Path, content: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Writes `model.json`, with the checksums of files in the folder and one of itself."""
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": f"elias_idx {__version__}",
        **content,
        "sha256": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }
    (folder / "model.json").write_bytes(with_checksum(description).encode())


def with_checksum(description: Mapping[str, Any]) -> str:
    """A description as JSON, whose `checksum` is the SHA-256 of that text with zeros in its place."""
    text = json.dumps({"checksum": _NO_CHECKSUM, **description}, indent=2) + "\n"
    return text.replace(_NO_CHECKSUM, hashlib.sha256(text.encode()).hexdigest(), 1)


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError(f"there is no model at {folder}")
    path = folder / "model.json"
    if not path.exists():
        raise FormatError(f"{folder} is no model: it has no model.json")
    # Reading a pipe or a device might never end.
    if not path.is_file():
        raise FormatError(f"{path} is no regular file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{folder}/model.json is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{folder}/model.json does not describe an elias_idx model")
    if content.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{folder} has model format {content.get('format_version')!r}, this elias_idx reads {FORMAT_VERSION}: "
            "upgrade elias_idx"
        )
    if (features := content.get("required_features", [])) not in ([], [ENSEMBLE]):
        raise FormatError(f"{folder} needs {features}, which this elias_idx does not know: upgrade elias_idx")
    return content
