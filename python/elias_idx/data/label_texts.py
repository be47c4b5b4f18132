"""What labels are called: names or descriptions, and those of the labels above them. L labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from elias_idx.data.lines import check_text, rows_by_label
from elias_idx.errors import DataError


class LabelText(NamedTuple):
    """What a label is called.

    Attributes:
        text: its name or description.
        parents: the names of the labels above it, such as the broader terms of a thesaurus.
    """

    text: str
    parents: tuple[str, ...] = ()


class LabelTexts(NamedTuple):
    """What the labels of a training set are called, in the order of its labels.

    Attributes:
        own: each label's text, [L]; empty where there is none.
        with_parents: the same, with the texts of the labels above it on lines of their own, [L].
    """

    own: Sequence[str]
    with_parents: Sequence[str]

    def take(self, labels: Iterable[int]) -> LabelTexts:
        """Those of some labels."""
        chosen = list(labels)
        return LabelTexts(*([texts[label] for label in chosen] for texts in self))


def read_label_texts(path: str | PathLike[str]) -> dict[str, LabelText]:
    """Reads JSON lines of `{"label": ..., "text": ..., "parents": [...]}`, by label; "parents" may be left out.

    Raises:
        DataError: a line is no such object, or names a label again.
        OSError: the file can't be read.
    """
    texts: dict[str, LabelText] = {}
    for where, row in rows_by_label(Path(path), "text"):
        texts[row["label"]] = LabelText(row["text"], _parents(row.get("parents"), where))
    return texts


def _parents(parents: Any, where: str) -> tuple[str, ...]:
    if parents is None:
        return ()
    if not isinstance(parents, list):
        raise DataError(f"{where}: 'parents' must be a list of labels, got {type(parents).__name__}")
    return tuple(check_text(parent, "parents", where) for parent in parents)


def texts_of_labels(texts: Mapping[str, LabelText], label_names: Sequence[str]) -> LabelTexts:
    """The texts of the given labels. Those of other labels serve as parents alone; parents without a text are left out.

    Raises:
        DataError: none of the labels has a text.
    """
    own = [texts[name].text if name in texts else "" for name in label_names]
    if not any(own):
        raise DataError(f"none of the {len(own)} labels has a text: they must be named as in the training data")
    above = [texts[name].parents if name in texts else () for name in label_names]
    with_parents = [
        "\n".join([text, *(texts[parent].text for parent in parents if parent in texts)])
        for text, parents in zip(own, above, strict=True)
    ]
    return LabelTexts(own, with_parents)
