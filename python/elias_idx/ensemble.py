"""Several models over the same labels as one: an ensemble, in one folder.

N inputs, L labels, D dimensions. The folder:

    model.json        which kind of model it is, and the checksums of its members' descriptions; written last
    members/0/, ...   the members, each a model's folder, see `elias_idx.model`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elias_idx.data import Inputs
from elias_idx.encoders import PrecomputedEncoder
from elias_idx.ensemble_index import EnsembleIndex
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.index import Dtype
from elias_idx.model import ENSEMBLE, Model, check_files, load_single, new_folder, write_description
from elias_idx.predictor import Predictor
from elias_idx.results import SearchResult


class Ensemble(Predictor):
    """Models whose scores are averaged: of different clusterings, seeds, settings or encoders.

    Its labels are those of the first model, and after them those that only others know: a label's score is the mean of
    its scores in all members, 0 in one that doesn't know it. What members have in common is worked out once: texts
    are encoded once for those with the same encoder.

    Args:
        members: two or more models, all of which take texts (or features), or all embeddings.

    Attributes:
        members: the models.
        label_counts: in how many training texts each label occurs, int64 [L]; the largest number that a member has.
        num_training_texts: how many there were, for the member with the most.
        path: the folder that it was loaded from; None for one that was not.

    Raises:
        ConfigError: there are fewer members, one is an ensemble itself, or they take different inputs.
        DataError: a member's index has no label names.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        _check(members)
        self.members = _with_shared_encoders(members)
        try:
            self._indexes = EnsembleIndex([member.index for member in members])
        except ValueError as error:
            raise DataError(f"the members' labels can't be told apart by name: {error}") from error
        self.label_counts = np.zeros(self._indexes.num_labels, np.int64)
        for number, member in enumerate(members):
            np.maximum.at(self.label_counts, self._indexes.labels_of(number), member.label_counts)
        self.num_training_texts = max(member.num_training_texts for member in members)
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
        self._check_encoders()
        return self.members[0].encode(texts, num_threads)

    @property
    def has_one_encoder(self) -> bool:
        """Whether all members have the same encoder, so that `index` takes what `encode` gives."""
        return all(member.encoder is self.members[0].encoder for member in self.members)

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

    def _search(
        self,
        texts: Inputs,
        k: int,
        *,
        num_threads: int | None,
        fusion: bool,  # noqa: ARG002 (of dense models yet)
        **options: Any,
    ) -> SearchResult:
        encoded: dict[int, npt.NDArray[np.float32]] = {}
        for member in self.members:
            if id(member.encoder) not in encoded:
                encoded[id(member.encoder)] = member.encode(texts, num_threads)
        embeddings = [encoded[id(member.encoder)] for member in self.members]
        return self._indexes.search_each(embeddings, k, num_threads=num_threads, **options)

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
            return Ensemble([member.quantize(dtype, screen=screen) for member in self.members])
        self._save(path, overwrite, lambda member, folder: member.quantize(dtype, screen=screen, path=folder))
        loaded = Model.load(path)
        assert isinstance(loaded, Ensemble)
        return loaded

    def _save(self, path: str | PathLike[str], overwrite: bool, write: Callable[[Model, Path], object]) -> None:
        with new_folder(Path(path).absolute(), overwrite) as folder:
            (folder / "members").mkdir()
            members = [folder / "members" / str(number) for number in range(len(self.members))]
            for model, member in zip(self.members, members, strict=True):
                write(model, member)
            write_description(folder, {"required_features": [ENSEMBLE]}, [member / "model.json" for member in members])

    @classmethod
    def _open(cls, folder: Path, content: Mapping[str, Any], mmap: bool) -> Ensemble:
        """Loads the members; `content` is that of `model.json`."""
        try:
            checksums = content["sha256"]
            names = [f"members/{number}/model.json" for number in range(len(checksums))]
            if names != list(checksums):
                raise ValueError(f"model.json must have checksums of {', '.join(names)}; it has {checksums}")
            # So that no member is another one than when the ensemble was made.
            check_files(folder, checksums)
            ensemble = cls([load_single((folder / name).parent, mmap) for name in names])
        except (AttributeError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{folder}: the ensemble is damaged: {error}") from error
        ensemble.path, ensemble._checksums = folder, checksums
        return ensemble

    def __repr__(self) -> str:
        where = "" if self.path is None else f", path={str(self.path)!r}"
        return f"<elias_idx.Ensemble of {len(self.members)} models: {self._indexes.num_labels} labels{where}>"


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


def _with_shared_encoders(members: Sequence[Model]) -> tuple[Model, ...]:
    """The models, where encoders that are the same are one object."""
    shared: list[Model] = []
    for member in members:
        same = next((earlier for earlier in shared if _same_encoder(earlier, member)), member)
        shared.append(replace(member, encoder=same.encoder))
    return tuple(shared)


def _same_encoder(one: Model, other: Model) -> bool:
    if isinstance(one.encoder, PrecomputedEncoder):
        return one.encoder == other.encoder
    return one.encoder is other.encoder or (_encoder_files(one) == _encoder_files(other) != {})


def _encoder_files(model: Model) -> dict[str, str]:
    """The checksums of a saved encoder's files."""
    return {name: digest for name, digest in model.checksums.items() if name.startswith("encoder/")}
