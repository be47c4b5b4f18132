"""The part of an index that searches with sparse features.

Shapes: Q queries, D dim, L labels, F sparse features, N training texts, R candidates of the dense search, P columns of
evidence, n rows of evidence or nodes of trees.
"""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from elias_idx import _arrays
from elias_idx import _core as core
from elias_idx._arrays import FloatArray, IntArray, SparseArrays

EVIDENCE: tuple[str, ...] = tuple(core.EVIDENCE)
"""The columns of evidence, of which docs/format.md says what they are; those of parts that an index lacks are 0."""

_Self = TypeVar("_Self", bound="WithFusion")


class Evidence(NamedTuple):
    """The candidates of queries, and what is known of them."""

    offsets: IntArray
    """[Q + 1]: the rows of query q are those from `offsets[q]` up to, not including, `offsets[q + 1]`."""
    labels: IntArray
    """[n]: of each query the labels of the dense search, best first, then those with the most votes of neighbours."""
    values: FloatArray
    """[n, P], a column for each of `EVIDENCE`."""


class FusionTrees(NamedTuple):
    """Decision trees whose leaves are added to the linear part of a fusion.

    Arrays of all nodes, tree after tree, the root of each first.
    """

    offsets: IntArray
    """Where each tree starts and ends, [T + 1]."""
    columns: npt.NDArray[np.int32]
    """[n]: the column of evidence that a node looks at, −1 for a leaf."""
    thresholds: npt.NDArray[np.floating[Any]]
    """[n]: values up to this go left, larger ones right. float64 is rounded down to float32, which changes nothing."""
    children: npt.NDArray[np.int32]
    """[n, 2]: nodes to the left and right, counted like these rows, in the same tree and behind their parent."""
    values: FloatArray
    """[n]: what a leaf adds to the score before the sigmoid."""


class FusionFunction(NamedTuple):
    """What makes a score of evidence: σ(bias + linear · evidence + leaves of trees)."""

    linear: FloatArray
    """A weight for each column of `EVIDENCE` [P]."""
    bias: float
    """What is added."""
    trees: FusionTrees | None
    """Trees whose leaves are added, if there are any."""


class WithFusion:
    """What `Index` has for searches with sparse features."""

    __slots__ = ()

    _core: core.Index

    @classmethod
    def _of(cls: type[_Self], inner: core.Index) -> _Self:
        raise NotImplementedError

    def with_evidence(
        self: _Self,
        *,
        num_features: int,
        num_candidates: int,
        label_counts: npt.ArrayLike,
        ranker: tuple[Any, npt.ArrayLike] | None = None,
        neighbours: tuple[Any, Any] | None = None,
        num_neighbours: int = 100,
        label_texts: Any = None,
        cooccurrence: Any = None,
    ) -> _Self:
        """Makes the same index with parts that say more of labels than the dense model: what `evidence` takes.

        Parts of this kind that the index has already are left out, and so is its fusion. The tensors of the dense
        model are shared with this index.

        Args:
            num_features: F.
            num_candidates: R, labels of the dense search that a search with sparse features looks at more closely;
                at most as many again come from the neighbours.
            label_counts: Training texts that have each label [L].
            ranker: A linear classifier on the sparse features for each label: weights, a CSR matrix [L, F], and
                biases [L].
            neighbours: The training texts' features, a CSR matrix [N, F] of rows of length 1, and their labels, a
                CSR matrix [N, L] whose stored entries count.
            num_neighbours: Training texts that vote for labels: the nearest ones.
            label_texts: The features of the labels' own texts, a CSR matrix [L, F] of rows of length 1 (or empty).
            cooccurrence: Which labels go together, a CSR matrix [L, L]: row m has the share of the texts with label m
                that have label l, too, for labels l ≠ m.

        Raises:
            ValueError: shapes that don't fit together, values that aren't finite, rows whose columns don't ascend.
            TypeError: something that isn't a CSR matrix or numbers.
        """
        num_labels = self._core.num_labels
        features = _arrays.as_count("num_features", num_features)
        shape = (num_labels, features)
        return self._of(
            self._core.with_evidence(
                features,
                _arrays.as_count("num_candidates", num_candidates),
                _arrays.as_count("num_neighbours", num_neighbours),
                as_counts(label_counts),
                None if ranker is None else as_ranker(ranker, shape),
                None if neighbours is None else as_neighbours(neighbours, features, num_labels),
                None if label_texts is None else _arrays.as_sparse("label_texts", label_texts, shape),
                None
                if cooccurrence is None
                else _arrays.as_sparse("cooccurrence", cooccurrence, (num_labels, num_labels)),
            )
        )

    def with_fusion(self: _Self, linear: npt.ArrayLike, bias: float = 0.0, trees: FusionTrees | None = None) -> _Self:
        """Makes the same index with a function from evidence to scores: σ(bias + linear · evidence + leaves of trees).

        Args:
            linear: A weight for each column of `EVIDENCE` [P].
            bias: What is added.
            trees: Trees whose leaves are added.

        Raises:
            ValueError: an index without evidence, another number of weights, values that aren't finite, trees that
                aren't proper (the node is named).
            TypeError: values that aren't numbers.
        """
        weights = _arrays.to_float32("linear", _arrays.as_array("linear", linear, ndim=(1,)))
        bias = _arrays.as_float("bias", bias)
        return self._of(self._core.with_fusion(weights, bias, None if trees is None else _as_trees(trees)))

    def evidence(
        self,
        embeddings: npt.ArrayLike,
        sparse: Any,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        num_candidates: int | None = None,
    ) -> Evidence:
        """Finds the candidates of each query and what is known of them: what a fusion is fitted to.

        Args:
            embeddings: Queries [Q, D], or one [D].
            sparse: Their sparse features, a CSR matrix [Q, F] of rows of length 1.
            beam_size: As for `search`, like what follows.
            shortlist_size: S.
            num_threads: Threads to use at most.
            num_candidates: R.

        Raises:
            ValueError: as `search`; an index without evidence.
            TypeError: as `search`.
        """
        queries, _ = _arrays.as_embeddings(embeddings, self._core.dim)
        features = self._as_features(sparse, len(queries))
        sizes = (
            _arrays.as_count_if_given("beam_size", beam_size),
            _arrays.as_count_if_given("shortlist_size", shortlist_size),
            _arrays.as_count_if_given("num_threads", num_threads),
            _arrays.as_count_if_given("num_candidates", num_candidates),
        )
        return Evidence(*self._core.evidence(queries, features, *sizes))

    @property
    def fusion(self) -> FusionFunction | None:
        """What `with_fusion` was given, read-only views of the index; None for an index without fusion."""
        if (linear := self._core.fusion_linear) is None:
            return None
        trees = self._core.fusion_trees
        return FusionFunction(linear[:-1], float(linear[-1]), None if trees is None else FusionTrees(*trees))

    @property
    def num_features(self) -> int | None:
        """F, the sparse features that queries may have; None for an index without evidence."""
        return self._core.num_features

    @property
    def num_candidates(self) -> int | None:
        """R, labels of the dense search that are candidates unless told otherwise; None without evidence."""
        return self._core.num_candidates

    @property
    def num_neighbours(self) -> int | None:
        """Training texts that vote, if there are any; None without evidence."""
        return self._core.num_neighbours

    @property
    def has_ranker(self) -> bool:
        """Whether there is a sparse ranker."""
        return self._core.has_ranker

    @property
    def has_neighbours(self) -> bool:
        """Whether there are training texts that vote."""
        return self._core.has_neighbours

    @property
    def has_label_texts(self) -> bool:
        """Whether there are the labels' own texts."""
        return self._core.has_label_texts

    @property
    def has_cooccurrence(self) -> bool:
        """Whether there is which labels go together."""
        return self._core.has_cooccurrence

    @property
    def has_fusion(self) -> bool:
        """Whether `search` takes sparse features."""
        return self._core.has_fusion

    def _as_fused(
        self, sparse: Any, num_candidates: int | None, num_queries: int
    ) -> tuple[SparseArrays | None, int | None]:
        """What the core's search takes for the two arguments."""
        if sparse is not None:
            return self._as_features(sparse, num_queries), _arrays.as_count_if_given("num_candidates", num_candidates)
        if num_candidates is not None:
            raise ValueError("num_candidates is for searches with sparse features: give sparse, too")
        return None, None

    def _as_features(self, sparse: Any, num_queries: int) -> SparseArrays:
        num_features = self._core.num_features
        if num_features is None:
            raise ValueError("the index takes no sparse features: with_evidence makes one that does")
        return _arrays.as_sparse("sparse", sparse, (num_queries, num_features))


def as_counts(label_counts: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    counts = _arrays.to_int64("label_counts", _arrays.as_array("label_counts", label_counts, ndim=(1,)))
    if counts.size and not (counts.min() >= 0 and counts.max() < 2**32):
        raise ValueError("label_counts must be from 0 to 2**32 - 1")
    return counts.astype(np.uint32)


def as_ranker(ranker: Any, shape: tuple[int, int]) -> tuple[SparseArrays, FloatArray]:
    weights, bias = _as_pair("ranker", ranker, "(weights, bias)")
    biases = _arrays.to_float32("the ranker's bias", _arrays.as_array("the ranker's bias", bias, ndim=(1,)))
    return _arrays.as_sparse("ranker", weights, shape), biases


def as_neighbours(neighbours: Any, num_features: int, num_labels: int) -> tuple[SparseArrays, SparseArrays]:
    features, labels = _as_pair("neighbours", neighbours, "(features, labels)")
    num_texts = _arrays.num_rows("the neighbours' features", features)
    return (
        _arrays.as_sparse("the neighbours' features", features, (num_texts, num_features)),
        _arrays.as_sparse("the neighbours' labels", labels, (num_texts, num_labels)),
    )


def _as_pair(name: str, pair: Any, parts: str) -> tuple[Any, Any]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair {parts}, got {type(pair).__name__}")
    return pair[0], pair[1]


def _as_trees(
    trees: FusionTrees,
) -> tuple[IntArray, npt.NDArray[np.int32], FloatArray, npt.NDArray[np.int32], FloatArray]:
    if not isinstance(trees, FusionTrees):
        raise TypeError(f"trees must be FusionTrees, got {type(trees).__name__}")
    offsets, columns, thresholds, children, values = (
        _arrays.as_array(f"trees.{name}", part, ndim=(2,) if name == "children" else (1,))
        for name, part in trees._asdict().items()
    )
    return (
        _arrays.to_int64("trees.offsets", offsets),
        _arrays.to_int32("trees.columns", columns),
        _rounded_down(thresholds),
        _arrays.to_int32("trees.children", children),
        _arrays.to_float32("trees.values", values),
    )


def _rounded_down(thresholds: npt.NDArray[Any]) -> FloatArray:
    """The largest float32 up to each threshold: no float32 lies between the two."""
    nearest = _arrays.to_float32("trees.thresholds", thresholds)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
