"""Several models over the same labels as one: an ensemble, in one folder.

N inputs, L labels, D dimensions. The folder:

    model.json        which kind of model it is, and the checksums of its members' descriptions; written last
    members/0/, ...   the members, each a model's folder, see `elias_idx.model`
    calibration.safetensors   what makes probabilities of the mean scores, if that was fitted
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx import calibration
from elias_idx._arrays import as_count
from elias_idx._wording import counted, shortened
from elias_idx.calibration import Calibration
from elias_idx.data import Inputs
from elias_idx.encoders import BagEncoder, PrecomputedEncoder
from elias_idx.ensemble_index import EnsembleIndex
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.features import Features
from elias_idx.index import Dtype
from elias_idx.model import ENSEMBLE, Model, check_files, load_single, new_folder, write_description
from elias_idx.predictor import Predictor, check_inputs
from elias_idx.results import SearchResult

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11, for type checkers alone

# Which of a model's files are those of its encoder, and of features, its encoder's or its own.
_ENCODER = "encoder/*"
_FEATURES = "*/features.*"


class Ensemble(Predictor):
    """Models whose scores are averaged: of different clusterings, seeds, settings or encoders.

    Its labels are those of the first model, and after them those that only others know: a label's score is the mean of
    its scores in all members, 0 in one that doesn't know it. What members have in common, their encoders or the n-grams
    these start from, is worked out once.

    Args:
        members: two or more models, all of which take texts (or features), or all embeddings.

    Attributes:
        members: the models.
        label_counts: in how many training texts each label occurs, int64 [L]; the largest number that a member has.
        num_training_texts: how many there were, for the member with the most.
        calibration: what makes probabilities of its scores; None before `calibrate`. That of members has no effect.
        path: the folder that it was loaded from; None for one that was not.

    Raises:
        ConfigError: there are fewer members, one is an ensemble itself, or they take different inputs.
        DataError: a member's index has no label names, or there is no label that all know.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        _check(members)
        self.members = _with_shared_parts(members)
        try:
            self._indexes = EnsembleIndex([member.index for member in members])
        except ValueError as error:
            raise DataError(f"the members' labels can't be told apart by name: {error}") from error
        if not self.num_shared_labels:
            raise DataError("the members have no label in common, so that there is nothing to average")
        self.label_counts = np.zeros(self._indexes.num_labels, np.int64)
        for number, member in enumerate(members):
            np.maximum.at(self.label_counts, self._indexes.labels_of(number), member.label_counts)
        self.num_training_texts = max(member.num_training_texts for member in members)
        self.calibration: Calibration | None = None
        self.path: Path | None = None
        self._checksums: Mapping[str, str] = {}

    @property
    def index(self) -> EnsembleIndex:
        """All members' indexes: one call searches them for embeddings that `encode` gives.

        Raises:
            ConfigError: the members' encoders differ, so that there are no such embeddings.
        """
        self._check_encoders()
        return self._indexes

    def encode(self, texts: Inputs, num_threads: int | None = None) -> npt.NDArray[np.float32]:
        """The texts' embeddings, float32 [N, D], for members with one encoder; as `Model.encode`.

        Raises:
            ConfigError: the members' encoders differ.
        """
        return self.vectorise(texts, num_threads, fusion=False)[0]

    def vectorise(
        self, texts: Inputs, num_threads: int | None = None, *, fusion: bool = True
    ) -> tuple[npt.NDArray[np.float32], sp.csr_matrix | None]:
        """The texts' embeddings [N, D] and sparse features [N, F] for `index`; as `Model.vectorise`.

        Raises:
            ConfigError: the members' encoders differ.
        """
        self._check_encoders()
        fused = next((member for member in self.members if member.index.has_fusion), self.members[0])
        return fused.vectorise(texts, num_threads, fusion=fusion)

    @property
    def has_one_encoder(self) -> bool:
        """Whether all members have the same encoder and features, so that `index` takes what `vectorise` gives."""
        features = {id(member.features) for member in self.members if member.index.has_fusion}
        return len(features) < 2 and all(member.encoder is self.members[0].encoder for member in self.members)

    @property
    def num_labels(self) -> int:
        """L, labels that any member knows."""
        return self._indexes.num_labels

    @property
    def num_shared_labels(self) -> int:
        """How many labels all members know."""
        return self._indexes.num_shared_labels

    def _check_encoders(self) -> None:
        if not self.has_one_encoder:
            raise ConfigError(
                "the members of this ensemble have different encoders, so that there are no embeddings "
                "that all of their indexes take: use predict(texts)"
            )

    @property
    def takes_embeddings(self) -> bool:
        """Whether the members take embeddings instead of texts or features."""
        return self.members[0].takes_embeddings

    @property
    def _index(self) -> EnsembleIndex:
        return self._indexes

    @property
    def _has_fusion(self) -> bool:
        return any(member.index.has_fusion for member in self.members)

    def with_calibration(self, fitted: Calibration | None) -> Self:
        """A copy with another calibration, or without one."""
        made = copy(self)
        made.calibration = fitted
        return made

    def with_defaults(
        self,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_candidates: int | None = None,
    ) -> Self:
        """Makes the same ensemble of members with other sizes; as `Model.with_defaults`."""
        if num_candidates is not None and not any(member.index.has_fusion for member in self.members):
            raise ValueError("num_candidates is for members with a fusion, and there is none")
        members = [
            member.with_defaults(beam_size, shortlist_size, num_candidates if member.index.has_fusion else None)
            for member in self.members
        ]
        return type(self)(members).with_calibration(self.calibration)

    def _search_for(
        self,
        queries: tuple[list[npt.NDArray[np.float32]], list[sp.csr_matrix | None]],
        k: int,
        **options: Any,
    ) -> SearchResult:
        embeddings, sparse = queries
        return self._indexes.search_each(embeddings, k, sparse=sparse, **options)

    def _queries(
        self, texts: Inputs, num_threads: int | None, fusion: bool
    ) -> tuple[list[npt.NDArray[np.float32]], list[sp.csr_matrix | None]]:
        """`Model.vectorise` of each member; features and encoders that members share are used once."""
        check_inputs(texts)
        num_threads = None if num_threads is None else as_count("num_threads", num_threads)
        fused = [member.features if fusion and member.index.has_fusion else None for member in self.members]
        encoders = {id(member.encoder): member.encoder for member in self.members}
        features = (*fused, *(encoder.features for encoder in encoders.values()))
        used = {id(each): each for each in features if each is not None}
        sparse = {key: each.transform(texts, num_threads) for key, each in used.items()}
        embeddings = {
            key: encoder.encode(texts, num_threads, sparse=sparse.get(id(encoder.features)))
            for key, encoder in encoders.items()
        }
        return [embeddings[id(member.encoder)] for member in self.members], [sparse.get(id(each)) for each in fused]

    def verify(self) -> None:
        """Recomputes the checksums of all files of all members that were loaded.

        Raises:
            FormatError: a file is damaged or missing; which one is said.
            OSError: one can't be read.
        """
        if self.path is not None:
            check_files(self.path, self._checksums)
        for member in self.members:
            member.verify()

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Writes a folder with copies of all members beside `path` and moves it there when it is whole.

        Raises:
            FileExistsError: there is something at `path` and `overwrite` is False, or it is no model.
            OSError: the folder can't be written; nothing is left behind.
        """
        self._save(path, overwrite, lambda member, folder: member.save(folder))

    def quantize(
        self,
        dtype: Dtype,
        *,
        screen: bool = True,
        path: str | PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Ensemble:
        """Makes the same ensemble of quantized members; as `Model.quantize`."""
        if path is None:
            made = Ensemble([member.quantize(dtype, screen=screen) for member in self.members])
            return made.with_calibration(self.calibration)
        self._save(path, overwrite, lambda member, folder: member.quantize(dtype, screen=screen, path=folder))
        loaded = Model.load(path)
        assert isinstance(loaded, Ensemble)
        return loaded

    def remove_labels(self, labels: Any) -> Ensemble:
        """Makes the same ensemble without some labels, in each member that knows them; as `Model.remove_labels`.

        Raises:
            ValueError: as `Index.remove_labels`, or a member would have no label left.
            TypeError: as `Index.remove_labels`.
        """
        pairs = zip(self.members, self._indexes.by_member(labels), strict=True)
        made = Ensemble([member.remove_labels(own) for member, own in pairs])
        return made.with_calibration(self.calibration)

    def add_labels(
        self,
        texts_by_label: Mapping[str, Inputs],
        *,
        other_texts: Inputs | None = None,
        label_texts: Mapping[str, str] | None = None,
        num_threads: int | None = None,
    ) -> Ensemble:
        """Makes the same ensemble with more labels, in each member; as `Model.add_labels`."""
        options: dict[str, Any] = {"label_texts": label_texts, "num_threads": num_threads}
        made = [member.add_labels(texts_by_label, other_texts=other_texts, **options) for member in self.members]
        return Ensemble(made).with_calibration(self.calibration)

    def _save(self, path: str | PathLike[str], overwrite: bool, write: Callable[[Model, Path], object]) -> None:
        with new_folder(Path(path).absolute(), overwrite) as folder:
            (folder / "members").mkdir()
            members = [folder / "members" / str(number) for number in range(len(self.members))]
            for model, member in zip(self.members, members, strict=True):
                write(model, member)
            if self.calibration is not None:
                self.calibration.save(folder)
            files = [*(member / "model.json" for member in members), *folder.glob(calibration.FILE)]
            write_description(folder, {"required_features": [ENSEMBLE]}, files)

    @classmethod
    def _open(cls, folder: Path, content: Mapping[str, Any], mmap: bool) -> Ensemble:
        """Loads the members; `content` is that of `model.json`."""
        try:
            checksums = content["sha256"]
            described = [name for name in checksums if name != calibration.FILE]
            names = [f"members/{number}/model.json" for number in range(len(described))]
            if names != described:
                raise ValueError(f"model.json must have checksums of {', '.join(names)}; it has {checksums}")
            # So that no member is another one than when the ensemble was made.
            check_files(folder, checksums)
            ensemble = cls([load_single((folder / name).parent, mmap) for name in names])
        except (AttributeError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{folder}: the ensemble is damaged: {error}") from error
        ensemble.path, ensemble._checksums = folder, checksums
        ensemble.calibration = Calibration.load(folder)
        return ensemble

    def __repr__(self) -> str:
        where = "" if self.path is None else f", path={shortened(self.path)!r}"
        sizes = f"{counted(len(self.members), 'model')}: {counted(self.num_labels, 'label')}"
        return f"<elias_idx.Ensemble of {sizes}{where}>"


def _check(members: Sequence[Model]) -> None:
    for number, member in enumerate(members):
        if isinstance(member, Ensemble):
            raise ConfigError(f"member {number} is an ensemble itself: give its own members instead")
        if not isinstance(member, Model):
            raise TypeError(f"members must be models, member {number} is of type {type(member).__name__}")
    if len(members) < 2:
        raise ConfigError(f"an ensemble has at least 2 members, got {len(members)}")
    if len({member.takes_embeddings for member in members}) > 1:
        kinds = ", ".join("embeddings" if member.takes_embeddings else "texts" for member in members)
        raise ConfigError(f"the members of an ensemble must take the same inputs; these take {kinds}")


def _with_shared_parts(members: Sequence[Model]) -> tuple[Model, ...]:
    """The models, where encoders that are the same are one object, and so are features."""
    shared: list[Model] = []
    for member in members:
        for earlier in shared:
            if _same_encoder(earlier, member):
                member = replace(member, encoder=earlier.encoder)
            if earlier.features is not None and _files(earlier, _FEATURES) == _files(member, _FEATURES) != {}:
                member = _with_features(member, earlier.features)
        shared.append(member)
    return tuple(shared)


def _same_encoder(one: Model, other: Model) -> bool:
    if isinstance(one.encoder, PrecomputedEncoder):
        return one.encoder == other.encoder
    return one.encoder is other.encoder or _files(one, _ENCODER) == _files(other, _ENCODER) != {}


def _files(model: Model, pattern: str) -> dict[str, str]:
    """The checksums of some of a loaded model's files."""
    return {Path(name).name: digest for name, digest in model.checksums.items() if fnmatch(name, pattern)}


def _with_features(model: Model, features: Features) -> Model:
    """A model with features that are equal to its own, but another object."""
    if model.features is features:
        return model
    if model.own_features is not None:
        return replace(model, own_features=features)
    encoder: Any = model.encoder
    if isinstance(encoder, BagEncoder):
        return replace(model, encoder=replace(encoder, features=features))
    return replace(model, encoder=replace(encoder, bag=replace(encoder.bag, features=features)))
