"""Labelled texts of a data set, split into those to train on and those to evaluate on.

N training texts, Q test texts, L labels of the training texts, U labels that only test texts have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import LabelText, LabelVocabulary, Row, TrainingSet, read_training_set
from elias_idx.data.lines import numbered_lines
from elias_idx.demo import icd10cm

ICD10CM = "icd10cm"

_NEAR = 120  # characters


@dataclass(frozen=True)
class TextSet:
    """A data set.

    Attributes:
        name: of the folder, or "icd10cm".
        split: "test" or "dev": what is evaluated on.
        train: N texts and their L labels, which have texts of their own if the folder has `labels.jsonl`.
        test: Q texts.
        relevant: the test texts' labels, CSR [Q, L + U].
        like_test: where some training texts are known to be more like the test texts than the others: these others,
            and those; None where nothing is known of that.
    """

    name: str
    split: str
    train: TrainingSet
    test: Sequence[str]
    relevant: sp.csr_matrix
    like_test: tuple[TrainingSet, TrainingSet] | None = None

    @property
    def label_counts(self) -> npt.NDArray[np.int64]:
        """In how many training texts each label occurs, [L + U]."""
        return np.bincount(self.train.labels.indices, minlength=self.relevant.shape[1])


def load_texts(source: str) -> TextSet:
    """Reads a data set.

    Args:
        source: "icd10cm" for the demo's data; else a folder with `train.jsonl` and `test.jsonl` or, without that,
            `dev.jsonl`, and perhaps `labels.jsonl` of `{"id", "name", "parents"}`; each may be packed (`.xz`, `.gz`).

    Raises:
        FileNotFoundError: the folder lacks a file.
    """
    if source == ICD10CM:
        data = icd10cm.load()
        train, test, others, like_test = map(_training_set, (data.train, data.test, *data.split_dev()))
        split, parts = "test", (others, like_test)
    else:
        folder = Path(source)
        path, split = _test_file(folder)
        train, test = read_training_set(_packed(folder, "train")[0]), read_training_set(path)
        parts = None
        if label_texts := _label_texts(folder):
            train = train.with_label_texts(label_texts)
    relevant, _ = LabelVocabulary(train.label_names).renumber(test.labels, test.label_names)
    return TextSet(set_name(source), split, train, test.inputs, relevant, parts)


def _training_set(rows: Sequence[Row]) -> TrainingSet:
    return TrainingSet([row.text for row in rows], [row.labels for row in rows])


def set_name(source: str) -> str:
    """The name of a data set, from what `load_texts` takes."""
    return Path(source).resolve().name if source != ICD10CM else source


def near_duplicates(train: Sequence[str], test: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which test texts nearly stand in the training texts, bool [Q].

    These agree with one in the first 120 characters, or as a whole where they are shorter; case and all that is neither
    letter nor digit apart.
    """
    known = {_start(text) for text in train}
    return np.array([_start(text) in known for text in test], bool)


def _start(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text[: 4 * _NEAR].casefold()).strip()[:_NEAR]


def _test_file(folder: Path) -> tuple[Path, str]:
    for split in ("test", "dev"):
        if found := _packed(folder, split):
            return found[0], split
    raise FileNotFoundError(f"{folder} has neither test.jsonl nor dev.jsonl")


def _label_texts(folder: Path) -> dict[str, LabelText]:
    rows = [json.loads(line) for path in _packed(folder, "labels") for _, line in numbered_lines(path)]
    return {row["id"]: LabelText(row["name"], tuple(row["parents"])) for row in rows}


def _packed(folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.jsonl{suffix}" for suffix in ("", ".xz", ".gz")]
    found = [path for path in paths if path.is_file()]
    if name == "train" and not found:
        raise FileNotFoundError(f"{folder} has no train.jsonl")
    return found
