"""Which texts are held out of a first training, to choose by. N texts, L labels.

Held-out texts shall be to the rest as new texts will be to all: what belongs together, by group or word for word, is
never on both sides. A text stays in training if one of its labels would otherwise have none left there: such a label
could not be found, and the final model, which is trained on all texts, knows it. Where that leaves too few texts to
choose by, as where most texts have some label to themselves, others are held out too, if some label of theirs is left:
the first model then knows fewer labels, by which all that is compared on the held-out texts loses alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import TrainingSet, same_inputs

SHARE, MOST = 0.05, 5000
# Of small sets a larger share is held out, since fewer texts say little: below these, another text is worth more than
# the labels that no text is left of.
SMALL_SHARE, WANTED = 0.2, 500
# Fewer than these say nothing.
FEWEST = 50

Rows = npt.NDArray[np.int64]


class HoldOut(NamedTuple):
    """A training set in two parts.

    Attributes:
        rest: the numbers of the texts to train on, ascending.
        held_out: those of the others.
    """

    rest: Rows
    held_out: Rows

    @property
    def is_enough(self) -> bool:
        """Whether the held-out texts say something."""
        return len(self.held_out) >= FEWEST


def hold_out(data: TrainingSet, seed: int, among: Rows | None = None) -> HoldOut:
    """Holds out about 5 % of the texts, at most 5,000; of fewer than 10,000 texts 500, or 20 % if that is less.

    Args:
        data: N texts; those of a group (see `TrainingSet.groups`) and those that are the same stay together.
        seed: of the choice.
        among: the numbers of texts that are like those to come: at most 5,000 of these are held out, and no others.
    """
    if among is None:
        wanted = min(MOST, max(round(SHARE * len(data)), min(WANTED, round(SMALL_SHARE * len(data)))))
        least = min(WANTED, wanted)
    else:
        wanted, least = MOST, min(WANTED, len(among) // 2)
    choice, rng = _Choice.of(data, among, wanted), np.random.default_rng(seed)
    choice.extend(wanted, rng, spare_labels=True)
    if choice.num_chosen < least:
        choice.extend(least, rng, spare_labels=False)
    return HoldOut(np.flatnonzero(~choice.is_chosen), np.flatnonzero(choice.is_chosen))


@dataclass
class _Choice:
    """Whole units, chosen one after the other; U of them.

    Attributes:
        labels: the texts', CSR [N, L].
        units: the number of each text's unit [N].
        may_go: which units may be chosen: those that have labels, and not more texts than wanted [U].
        left: how many texts each label has left [L].
        is_chosen: which texts are chosen [N].
    """

    labels: sp.csr_matrix
    units: Rows
    may_go: npt.NDArray[np.bool_]
    left: Rows
    is_chosen: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, data: TrainingSet, among: Rows | None, wanted: int) -> _Choice:
        """None chosen yet."""
        units = _units(data)
        sizes = np.bincount(units)
        may_go = (np.bincount(units, np.diff(data.labels.indptr)) > 0) & (sizes <= wanted)
        if among is not None:
            may_go &= np.bincount(units[among], minlength=len(sizes)) == sizes
        left = np.bincount(data.labels.indices, minlength=data.labels.shape[1])
        return cls(data.labels, units, may_go, left, np.zeros(len(data), bool))

    @property
    def num_chosen(self) -> int:
        """How many texts are chosen."""
        return int(np.count_nonzero(self.is_chosen))

    def extend(self, wanted: int, rng: np.random.Generator, *, spare_labels: bool) -> None:
        """Chooses more units, in random order and up to so many texts.

        Args:
            wanted: texts, those that are chosen already included.
            rng: for the order.
            spare_labels: whether all of a unit's labels must have texts left then, or only one of them.
        """
        rows_by_unit = np.argsort(self.units, kind="stable")
        starts = np.concatenate([[0], np.bincount(self.units).cumsum()])
        may_go = self.may_go & ~self._has_last_text if spare_labels else self.may_go
        room = wanted - self.num_chosen
        for unit in rng.permutation(np.flatnonzero(may_go)):
            rows = rows_by_unit[starts[unit] : starts[unit + 1]]
            if len(rows) > room or self.is_chosen[rows[0]]:
                continue
            labels, counts = np.unique(self.labels[rows].indices, return_counts=True)
            stays = self.left[labels] > counts
            if stays.all() if spare_labels else stays.any():
                self.left[labels] -= counts
                self.is_chosen[rows] = True
                room -= len(rows)
            if not room:
                break

    @property
    def _has_last_text(self) -> npt.NDArray[np.bool_]:
        """Which units have some label's only text, [U]: a first, quick look."""
        rows = np.repeat(np.arange(len(self.units)), np.diff(self.labels.indptr))
        return np.bincount(self.units[rows[self.left[self.labels.indices] == 1]], minlength=len(self.may_go)) > 0


def _units(data: TrainingSet) -> Rows:
    """The number of each text's unit, [N]: of what is held out together or not at all."""
    own = np.arange(len(data))
    numberings = [same_inputs(data.inputs), *([] if data.groups is None else [data.groups])]
    # Texts and what they are numbered by are the nodes of a graph, whose components are the units.
    ends, num_nodes = [], len(data)
    for numbers in numberings:
        ends.append(num_nodes + numbers)
        num_nodes += int(numbers.max()) + 1
    edges = (np.ones(len(data) * len(ends), bool), (np.tile(own, len(ends)), np.concatenate(ends)))
    graph = sp.coo_matrix(edges, shape=(num_nodes, num_nodes))
    _, components = sp.csgraph.connected_components(graph, directed=False)
    return np.unique(components[: len(data)], return_inverse=True)[1].astype(np.int64)
