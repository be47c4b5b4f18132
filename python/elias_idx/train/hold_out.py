"""Which texts are held out of a first training, to choose by. N texts, L labels.

Held-out texts shall be to the rest as new texts will be to all: what belongs together, by group or word for word, is
never on both sides. A text stays in training if one of its labels would otherwise have none left there: such a label
could not be found, and the final model, which is trained on all texts, knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import Inputs, TrainingSet, is_sparse

SHARE, MOST = 0.05, 5000
# Of small sets a larger share is held out, since fewer texts say little.
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
    wanted = MOST
    if among is None:
        wanted = min(MOST, max(round(SHARE * len(data)), min(WANTED, round(SMALL_SHARE * len(data)))))
    chosen = _choice(data, _units(data), among, wanted, np.random.default_rng(seed))
    is_held_out = np.zeros(len(data), bool)
    is_held_out[chosen] = True
    return HoldOut(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))


def _choice(data: TrainingSet, units: Rows, among: Rows | None, wanted: int, rng: np.random.Generator) -> Rows:
    """Whole units in random order, at most so many texts, that leave each of their labels a text."""
    rows_by_unit = np.argsort(units, kind="stable")
    sizes = np.bincount(units)
    starts = np.concatenate([[0], sizes.cumsum()])
    left = np.bincount(data.labels.indices, minlength=data.labels.shape[1])
    chosen, room = [np.empty(0, np.int64)], wanted
    may_go = _may_go(data.labels, left, units) & (sizes <= wanted)
    if among is not None:
        may_go &= np.bincount(units[among], minlength=len(sizes)) == sizes
    for unit in rng.permutation(np.flatnonzero(may_go)):
        if sizes[unit] > room:
            continue
        rows = rows_by_unit[starts[unit] : starts[unit + 1]]
        labels, counts = np.unique(data.labels[rows].indices, return_counts=True)
        if (left[labels] > counts).all():
            left[labels] -= counts
            chosen.append(rows)
            room -= len(rows)
        if not room:
            break
    return np.concatenate(chosen)


def _may_go(labels: sp.csr_matrix, counts: Rows, units: Rows) -> npt.NDArray[np.bool_]:
    """Which units have labels, none of which is some other label's only text: a first, quick look."""
    lengths = np.diff(labels.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    num_units = int(units.max()) + 1
    has_labels = np.bincount(units, lengths, num_units) > 0
    has_rare = np.bincount(units[rows[counts[labels.indices] == 1]], minlength=num_units) > 0
    return has_labels & ~has_rare


def _units(data: TrainingSet) -> Rows:
    """The number of each text's unit, [N]: of what is held out together or not at all."""
    own = np.arange(len(data))
    numberings = [_same_inputs(data), *([] if data.groups is None else [data.groups])]
    # Texts and what they are numbered by are the nodes of a graph, whose components are the units.
    ends, num_nodes = [], len(data)
    for numbers in numberings:
        ends.append(num_nodes + numbers)
        num_nodes += int(numbers.max()) + 1
    edges = (np.ones(len(data) * len(ends), bool), (np.tile(own, len(ends)), np.concatenate(ends)))
    graph = sp.coo_matrix(edges, shape=(num_nodes, num_nodes))
    _, components = sp.csgraph.connected_components(graph, directed=False)
    return np.unique(components[: len(data)], return_inverse=True)[1].astype(np.int64)


def _same_inputs(data: TrainingSet) -> Rows:
    """A number for each input, [N], the same one for inputs that are the same."""
    numbers: dict[str | bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in _keys(data.inputs)], np.int64)


def _keys(inputs: Inputs) -> Iterable[str | bytes]:
    """What tells inputs apart: texts themselves, and digests of arrays."""
    if is_sparse(inputs):
        bounds = zip(inputs.indptr[:-1], inputs.indptr[1:], strict=True)
        return (_digest(inputs.indices[start:end], inputs.data[start:end]) for start, end in bounds)
    return map(_digest, inputs) if isinstance(inputs, np.ndarray) else inputs


def _digest(*arrays: npt.NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
