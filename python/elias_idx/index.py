"""The search index: built from a trained model's parts, saved, loaded, searched.

Shapes, used throughout: Q queries, D dim, C clusters, L labels, D' label dim, B beam, S shortlist,
nnz edges of the adjacency.
"""

import os
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from elias_idx import _arrays
from elias_idx import _core as core
from elias_idx._arrays import FloatArray, IntArray
from elias_idx._change import WithChanges
from elias_idx._core import LabelFilter
from elias_idx._explain import Sizes, explanation
from elias_idx._fusion import WithFusion
from elias_idx._wording import counted
from elias_idx.results import (
    Adjacency,
    BeamResult,
    ClusterEdges,
    LabelEdges,
    LabelExplanation,
    LabelNames,
    SearchResult,
    ShortlistResult,
)

if TYPE_CHECKING:
    from elias_idx._core import _Filter

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
"""What label classifiers can be stored as."""


class Index(WithFusion, WithChanges):
    """A learned search index over labels (ELIAS, Gupta et al. 2022); immutable and thread-safe.

    Made by `Index.build` or `Index.load`. Searches run outside the GIL, with the help of one pool of threads
    for the process that all indexes share, and Ctrl-C ends them. A forked process gets a pool of its own.
    Arrays that its properties give are read-only views of its memory (of the mapped files, where it was
    loaded so) and keep it alive.
    """

    __slots__ = ("__weakref__", "_core")

    def __init__(self) -> None:
        raise TypeError("an Index is made by Index.build(...) or Index.load(path)")

    @classmethod
    def build(
        cls,
        cluster_weights: npt.ArrayLike,
        cluster_bias: npt.ArrayLike,
        adjacency: Any,
        label_weights: npt.ArrayLike,
        label_bias: npt.ArrayLike,
        *,
        label_projection: npt.ArrayLike | None = None,
        alpha: float = 10.0,
        beam_size: int = 20,
        shortlist_size: int = 2000,
        label_names: Sequence[str] | None = None,
        dtype: Dtype = "float32",
        screen: bool = True,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> "Index":
        """Builds an index from a trained model's parts, in memory or in a folder.

        Edges and label classifiers are read, converted and, with `path`, written in blocks of some 64 MiB:
        given as memory-mapped arrays they may be far larger than memory.

        Args:
            cluster_weights: W_C [C, D].
            cluster_bias: b_C [C].
            adjacency: A [C, L], weights in (0, 1]: a CSR matrix such as SciPy's, or a triple
                (indptr, indices, data). Rows may be unsorted or empty, indices int32 or int64.
            label_weights: W_L [L, D'], D' = D without `label_projection`.
            label_bias: b_L [L].
            label_projection: T [D', D], applied to an embedding before the label classifiers.
            alpha: α, the scale of the cluster scores min(1, α · softmax); finite and positive.
            beam_size: B, clusters that a search keeps unless told otherwise.
            shortlist_size: S, labels that a search scores unless told otherwise.
            label_names: L unique strings.
            dtype: What the label classifiers are stored as, rounded to nearest: "float32", "bfloat16",
                "float16" or "int8", which has a scale for each row and gives approximate scores. float16
                ends at 65,504. int8 takes at most 65,536 dimensions.
            screen: Whether 8-bit codes of clusters and labels stand beside exact weights: a search reads
                these few bytes first, and exact weights only where they can matter. It costs a byte a
                number (C·D, and L·D' unless the dtype is int8), and saves much time. Above 65,536
                dimensions there are none.
            path: A folder to build the index in, from which it is mapped then. It appears whole or not at all.
            overwrite: Whether an index at `path` may be replaced.

        Raises:
            ValueError: shapes that don't fit together, weights that aren't finite or that the dtype can't
                hold, a broken CSR matrix, duplicate edges, explicit zeros, names that aren't unique, numbers
                out of range.
            TypeError: values that aren't numbers, names that aren't strings.
            OSError: as `save`.
        """
        clusters = _arrays.as_array("cluster_weights", cluster_weights, ndim=(2,))
        labels = _arrays.Blocks("label_weights", label_weights, 2)
        cluster_biases = _arrays.as_array("cluster_bias", cluster_bias, ndim=(1,))
        label_biases = _arrays.Blocks("label_bias", label_bias, 1)
        projection = None
        if label_projection is not None:
            projection = _arrays.as_array("label_projection", label_projection, ndim=(2,))
        # Shapes first, so that nothing is converted for an index that can't be.
        _check_shapes(
            clusters.shape,
            labels.shape,
            (len(cluster_biases), len(label_biases)),
            None if projection is None else projection.shape,
        )
        names = None if label_names is None else _arrays.as_name_list("label_names", label_names, len(labels))
        csr = _arrays.as_csr(adjacency, (len(clusters), len(labels)))
        with core.IndexWriter(
            _arrays.to_float32("cluster_weights", clusters),
            _arrays.to_float32("cluster_bias", cluster_biases),
            csr.indptr,
            len(csr.indices),
            (labels.shape[0], labels.shape[1]),
            None if projection is None else _arrays.to_float32("label_projection", projection),
            names,
            _arrays.as_float("alpha", alpha),
            _arrays.as_count("beam_size", beam_size),
            _arrays.as_count("shortlist_size", shortlist_size),
            _as_dtype(dtype),
            bool(screen),
            None if path is None else os.fspath(path),
            bool(overwrite),
        ) as writer:
            for edges in _arrays.row_blocks(csr.indptr):
                writer.push_edges(
                    _arrays.to_int64("adjacency.indices", csr.indices[edges]),
                    _arrays.to_float32("adjacency.data", csr.data[edges]),
                )
            for rows in _arrays.blocks(labels.shape):
                writer.push_labels(
                    _arrays.to_float32("label_weights", labels[rows]),
                    _arrays.to_float32("label_bias", label_biases[rows]),
                )
            return cls._of(writer.finish())

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = True, prefault: bool = False) -> "Index":
        """Opens an index folder.

        Sizes, headers, shapes and the adjacency are checked; `verify` checks every byte.

        Args:
            path: The folder.
            mmap: Map the files, which is instant and reads what a search touches; else read them whole, into
                huge pages where the system gives them, which makes searches faster.
            prefault: Bring all of the mapped files into memory at once, so that no search waits for the disk.

        Raises:
            OSError: the file system refuses, e.g. `FileNotFoundError`.
            FormatError: the folder is no index, or a damaged one, or one of a newer version.
        """
        return cls._of(core.Index.load(os.fspath(path), bool(mmap), bool(prefault)))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the index to a folder, whole or not at all.

        With `overwrite` an index at `path` is replaced at once; one that is mapped from there, this one
        too, goes on working.

        Raises:
            FileExistsError: something is at `path` and `overwrite` is not set, or it isn't an index alone.
            OSError: the file system refuses, e.g. a missing parent folder or a full disk.
            FormatError: this index was loaded from files that are damaged.
        """
        self._core.save(os.fspath(path), bool(overwrite))

    def quantize(
        self,
        dtype: Dtype,
        *,
        screen: bool = True,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> "Index":
        """Makes the same index with its label classifiers in another dtype.

        float32 of bfloat16 or float16 is exact, other conversions between floats round to nearest. int8
        can't be turned back: of an int8 index only another one is made, with or without a screen.

        Args:
            dtype: As for `build`.
            screen: As for `build`.
            path: A folder to write the new index to, block by block, from which it is mapped then; else it
                is made in memory.
            overwrite: Whether an index at `path` may be replaced, this one too.

        Raises:
            ValueError: no such dtype, a weight that it can't hold (its place is named), floats from int8.
            OSError: as `save`.
            FormatError: this index was loaded from files that are damaged.
        """
        folder = None if path is None else os.fspath(path)
        return self._of(self._core.quantize(_as_dtype(dtype), bool(screen), folder, bool(overwrite)))

    def with_defaults(
        self,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_candidates: int | None = None,
    ) -> "Index":
        """Makes the same index with other sizes that a search uses unless told otherwise; all tensors are shared.

        Args:
            beam_size: B; None leaves it as it is, like what follows.
            shortlist_size: S.
            num_candidates: R, of an index with fusion.

        Raises:
            ValueError: numbers below 1, `num_candidates` for an index that takes no sparse features.
            TypeError: sizes that aren't integers.
        """
        sizes = {"beam_size": beam_size, "shortlist_size": shortlist_size, "num_candidates": num_candidates}
        return self._of(
            self._core.with_defaults(*(_arrays.as_count_if_given(name, size) for name, size in sizes.items()))
        )

    def in_memory(self) -> "Index":
        """A copy of this index that needs no folder; it is pickled with all of its bytes.

        Raises:
            OSError: a file of the folder that this one was loaded from can't be read.
        """
        return Index._of(core.Index.from_files(self._core.to_files()))

    def verify(self) -> None:
        """Recomputes all checksums of a loaded index, over what is mapped or held.

        Raises:
            FormatError: a file is damaged, which one is said.
        """
        self._core.verify()

    def search(
        self,
        embeddings: npt.ArrayLike,
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
        sparse: Any = None,
        num_candidates: int | None = None,
        out: tuple[IntArray, FloatArray] | None = None,
    ) -> SearchResult:
        """Finds the k best labels of each query.

        Args:
            embeddings: Queries [Q, D], or one [D]: anything that NumPy turns into real numbers.
            k: Labels to return, at least 1. Where fewer are reachable, rows are padded with −1 and 0.
            beam_size: B, clusters to keep; more than there are means all.
            shortlist_size: S, labels to score; more than there are means all.
            num_threads: Threads to use at most, the calling one included; None, or more than there are, means
                as many as CPUs that the calling thread may use (affinity and cgroup limits, read once a
                second). Fewer help while other searches keep these CPUs busy.
            filter: The labels that may be returned: a `LabelFilter`, or what `label_filter` makes one of; or a filter
                for each query, as a list of Q `LabelFilter` or None (no filter), or as a CSR matrix [Q, L] such as
                SciPy's, or a tuple (indptr, indices, data), whose non-zeros are the labels allowed. Other labels are
                dropped before the shortlist is cut, and the beam widens to the fewest best clusters, at least B, that
                lead to S allowed labels: what few labels are allowed are all found, if any cluster leads to them.
            min_score: Labels with a lower score are left out, and the row is padded instead.
            sparse: The queries' sparse features, a CSR matrix [Q, F] of rows of length 1, for an index with fusion: the
                best labels of the dense search and those of the nearest training texts are scored by all that is
                known of them (see `evidence`). Without it the dense model alone is searched.
            num_candidates: R, labels of the dense search that are scored so, at least k; None means the index's own.
            out: Arrays to write labels (int64) and scores (float32) to, both of the shape of the result and
                C-contiguous; they are returned.

        Returns:
            Labels and scores, best first, equal scores by the smaller label.

        Raises:
            ValueError: another dim, NaN or infinity (the row is named), numbers below 1, a filter of another index or
                of another number of queries, a `min_score` of NaN, an `out` of another shape or layout or that
                overlaps the embeddings, `sparse` of another shape, with rows whose columns don't ascend or for an
                index without fusion, `num_candidates` without `sparse`.
            TypeError: embeddings that aren't numbers, sizes that aren't integers, another kind of filter, an `out` of
                other dtypes.
            MemoryError: k results a query don't fit into memory.
        """
        queries, single = _arrays.as_embeddings(embeddings, self.dim)
        k = _arrays.as_count("k", k, limit=2**63)
        if k > sys.maxsize:
            raise ValueError(f"k must be at most {sys.maxsize}")
        sizes = self._sizes(beam_size, shortlist_size, num_threads)
        allowed = self._as_filter(filter, len(queries))
        least = None if min_score is None else _arrays.as_float("min_score", min_score)
        fused = self._as_fused(sparse, num_candidates, len(queries))
        if out is None:
            results = _empty_results(len(queries), k)
            self._core.search(queries, results, *sizes, allowed, least, *fused)
            return SearchResult(*_first_if(single, results))
        labels, scores = _arrays.as_out(out, (k,) if single else (len(queries), k), queries)
        rows = labels.reshape(len(queries), k), scores.reshape(len(queries), k)
        self._core.search(queries, rows, *sizes, allowed, least, *fused)
        return SearchResult(labels, scores)

    def search_batches(
        self,
        batches: Iterable[npt.ArrayLike],
        k: int = 10,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
        min_score: float | None = None,
        sparse: Iterable[Any] | None = None,
        num_candidates: int | None = None,
    ) -> Iterator[SearchResult]:
        """Searches for one item after the other, each when its result is asked for.

        Args:
            batches: Embeddings as for `search`, e.g. arrays [Q_i, D] that a generator reads from a file.
            k: As for `search`, like what follows.
            beam_size: B.
            shortlist_size: S.
            num_threads: Threads to use at most.
            filter: One filter for all queries.
            min_score: Labels with a lower score are left out.
            sparse: CSR matrices as for `search`, as many as there are items.
            num_candidates: R.

        Returns:
            An iterator over the results, one an item.

        Raises:
            ValueError: as `search`; for the arguments at once, for an item when it is searched for.
            TypeError: likewise, and something that can't be iterated over.
        """
        if not isinstance(batches, Iterable):
            raise TypeError(f"batches must be an iterable of embeddings, got {type(batches).__name__}")
        options: dict[str, Any] = {
            "beam_size": beam_size,
            "shortlist_size": shortlist_size,
            "num_threads": num_threads,
            "filter": filter if filter is None or isinstance(filter, LabelFilter) else self.label_filter(filter),
            "min_score": min_score,
        }
        nothing = np.empty((0, self.dim), dtype=np.float32)
        if sparse is None:
            # A search for nothing looks at all arguments.
            self.search(nothing, k, num_candidates=num_candidates, **options)
            return (self.search(embeddings, k, **options) for embeddings in batches)
        if not isinstance(sparse, Iterable) or _arrays.is_csr(sparse):
            raise TypeError(f"sparse must be an iterable of CSR matrices, got {type(sparse).__name__}")
        options["num_candidates"] = num_candidates
        no_features = (np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
        self.search(nothing, k, sparse=no_features, **options)
        pairs = zip(batches, sparse, strict=True)
        return (self.search(embeddings, k, sparse=features, **options) for embeddings, features in pairs)

    def beam(
        self, embeddings: npt.ArrayLike, *, beam_size: int | None = None, num_threads: int | None = None
    ) -> BeamResult:
        """Finds the beam of each query: the clusters that a search follows. Arguments as for `search`."""
        queries, single = _arrays.as_embeddings(embeddings, self.dim)
        size, _, num_threads = self._sizes(beam_size, None, num_threads)
        out = _empty_results(len(queries), min(size, self.num_clusters))
        self._core.beam(queries, out, size, num_threads)
        return BeamResult(*_first_if(single, out))

    def shortlist(
        self,
        embeddings: npt.ArrayLike,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        num_threads: int | None = None,
        filter: Any = None,
    ) -> ShortlistResult:
        """Finds the shortlist of each query: the labels that a search scores. Arguments as for `search`."""
        queries, single = _arrays.as_embeddings(embeddings, self.dim)
        sizes = self._sizes(beam_size, shortlist_size, num_threads)
        out = _empty_results(len(queries), min(sizes[1], self.num_labels))
        self._core.shortlist(queries, out, *sizes, self._as_filter(filter, len(queries)))
        return ShortlistResult(*_first_if(single, out))

    def label_filter(self, labels: Any) -> LabelFilter:
        """Makes a filter of labels for `search`, to be used as often as wanted, on any threads.

        It takes memory for 32 bits a label that it allows, or for one bit a label of the index, whichever is less.

        Args:
            labels: The labels to allow: ids in any order, repeated or not; or names; or a boolean mask [L].

        Raises:
            ValueError: an id or a name that no label has, a mask of another length.
            TypeError: neither of the three.
        """
        given = _arrays.as_labels(labels)
        if isinstance(given, list):
            return self._core.label_filter(self._core.find_labels(given))
        if given.dtype != bool:
            return self._core.label_filter(given)
        _arrays.check_mask(given, self.num_labels)
        return self._core.label_filter_of_mask(np.ascontiguousarray(given).view(np.uint8))

    def explain(
        self,
        embedding: npt.ArrayLike,
        labels: Any,
        *,
        beam_size: int | None = None,
        shortlist_size: int | None = None,
        filter: Any = None,
    ) -> tuple[LabelExplanation, ...]:
        """Says how a search treats labels: why it returns them, or why not.

        Args:
            embedding: One query [D] (or [1, D]).
            labels: Ids or names of the labels to explain, returned by a search or not.
            beam_size: As for `search`, like what follows.
            shortlist_size: S.
            filter: A filter.

        Returns:
            An explanation for each label, in their order; printed, it is a sentence. Scores agree with those of
            `search`.

        Raises:
            ValueError: as `search`, several embeddings, an id or a name that no label has.
            TypeError: as `search`, labels that are neither ids nor names.
        """
        queries, _ = _arrays.as_embeddings(embedding, self.dim)
        if len(queries) != 1:
            raise ValueError(f"explain takes one embedding, got {len(queries)}")
        given = _arrays.as_labels(labels)
        if not isinstance(given, list) and given.dtype == bool:
            raise TypeError("labels must be ids or names, got booleans")
        ids = self._core.find_labels(given) if isinstance(given, list) else given
        *reach, explanations = self._core.explain(
            queries, ids, *self._sizes(beam_size, shortlist_size, None)[:2], self._as_filter(filter, 1)
        )
        names = self._core.names(ids) if self._core.has_names else [None] * len(ids)
        return tuple(explanation(*pair, Sizes(*reach)) for pair in zip(explanations, names, strict=True))

    def clusters(self, label: int) -> ClusterEdges:
        """The clusters that lead to a label, and the weights of their edges.

        The first call on an index (of this, of `explain` or with a filter of few labels) sorts all edges by label,
        and keeps that in memory: 8 bytes an edge and 8 a label.

        Raises:
            ValueError: an id that no label has.
            TypeError: not an integer.
        """
        return ClusterEdges(*self._core.clusters_of(_arrays.as_id("label", label, self.num_labels)))

    def labels(self, cluster: int) -> LabelEdges:
        """The labels that a cluster leads to, and the weights of its edges: read-only views of the adjacency.

        Raises:
            ValueError: an id that no cluster has.
            TypeError: not an integer.
        """
        row = _arrays.as_id("cluster", cluster, self.num_clusters)
        indptr, labels, weights = self._core.adjacency
        edges = slice(indptr[row], indptr[row + 1])
        return LabelEdges(labels[edges], weights[edges])

    def names(self, labels: npt.ArrayLike) -> Any:
        """The names of labels, e.g. those that `search` returns.

        Args:
            labels: Ids of any shape; −1 gives None.

        Returns:
            An object array of the same shape, or a single `str` or None for a single id.

        Raises:
            ValueError: an id that no label has, or an index without label names.
            TypeError: ids that aren't integers.
        """
        ids = _arrays.as_label_ids(labels, self.num_labels)
        names = np.empty(ids.size, dtype=object)
        names[:] = self._core.names(ids.ravel())
        return names.reshape(ids.shape) if ids.ndim else names[0]

    @property
    def num_labels(self) -> int:
        """L."""
        return self._core.num_labels

    @property
    def num_clusters(self) -> int:
        """C."""
        return self._core.num_clusters

    @property
    def dim(self) -> int:
        """D, the size of a query embedding."""
        return self._core.dim

    @property
    def label_dim(self) -> int:
        """D', the size of a label's classifier; D without a projection."""
        return self._core.label_dim

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, mapped or in memory."""
        return self._core.nbytes

    @property
    def dtype(self) -> Dtype:
        """What the label classifiers are stored as."""
        return typing.cast("Dtype", self._core.dtype)

    @property
    def screen(self) -> bool:
        """Whether 8-bit codes stand beside exact weights (of the clusters alone where the dtype is int8)."""
        return self._core.has_screen

    def memory(self) -> dict[str, int]:
        """Bytes of each tensor, mapped or in memory, by its name in docs/format.md; `nbytes` is their sum."""
        return self._core.memory()

    @property
    def path(self) -> Path | None:
        """The folder that the index was loaded from; None for one that was built."""
        source = self._core.source
        return None if source is None else Path(source[0])

    @property
    def alpha(self) -> float:
        """α, the scale of the cluster scores."""
        return self._core.alpha

    @property
    def beam_size(self) -> int:
        """B, clusters that a search keeps unless told otherwise."""
        return self._core.beam_size

    @property
    def shortlist_size(self) -> int:
        """S, labels that a search scores unless told otherwise."""
        return self._core.shortlist_size

    @property
    def cluster_weights(self) -> FloatArray:
        """W_C [C, D], read-only."""
        return self._core.cluster_weights

    @property
    def cluster_bias(self) -> FloatArray:
        """b_C [C], read-only."""
        return self._core.cluster_bias

    @property
    def adjacency(self) -> Adjacency:
        """A [C, L] as CSR arrays, read-only."""
        return Adjacency(*self._core.adjacency)

    @property
    def label_weights(self) -> FloatArray | npt.NDArray[np.float16]:
        """W_L [L, D'], read-only, where the index's dtype is float32 or float16.

        Raises:
            AttributeError: it is bfloat16 or int8, which NumPy can't show; see `label_rows`.
        """
        if (weights := self._core.label_weights) is None:
            raise AttributeError(
                f"no NumPy array can show {self.dtype} label weights: label_rows(ids) gives rows as float32"
            )
        return weights

    def label_rows(self, labels: npt.ArrayLike) -> FloatArray:
        """The classifiers of some labels, of any dtype, as float32: exactly those that are stored.

        Args:
            labels: Ids of any shape.

        Returns:
            A new array [..., D'] of the ids' shape and a row for each.

        Raises:
            ValueError: an id that no label has.
            TypeError: ids that aren't integers.
        """
        ids = _arrays.as_label_ids(labels, self.num_labels, lowest=0)
        rows = np.empty((ids.size, self.label_dim), dtype=np.float32)
        self._core.label_rows(ids.ravel(), rows)
        return rows.reshape(*ids.shape, self.label_dim)

    @property
    def label_bias(self) -> FloatArray:
        """b_L [L], read-only."""
        return self._core.label_bias

    @property
    def label_projection(self) -> FloatArray | None:
        """T [D', D], read-only, if the index has one."""
        return self._core.label_projection

    @property
    def label_names(self) -> LabelNames | None:
        """The names of all labels, read when asked for, if the index has names."""
        return LabelNames(self._core, range(self.num_labels)) if self._core.has_names else None

    def __repr__(self) -> str:
        where = "" if self.path is None else f", path={str(self.path)!r}"
        sizes = f"{counted(self.num_labels, 'label')}, {counted(self.num_clusters, 'cluster')}"
        return f"<elias_idx.Index: {sizes}, dim {self.dim}, {self.dtype}, {_readable_bytes(self.nbytes)}{where}>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("an Index is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("an Index is immutable")

    def __copy__(self) -> "Index":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Index":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """By path and checksum when loaded, by bytes when built."""
        source = self._core.source
        if source is None:
            return _from_files, (self._core.to_files(),)
        path, *rest = source
        return _from_source, (os.fspath(path), *rest)

    @classmethod
    def _of(cls, inner: core.Index) -> "Index":
        index = object.__new__(cls)
        object.__setattr__(index, "_core", inner)
        return index

    def _sizes(
        self, beam_size: int | None, shortlist_size: int | None, num_threads: int | None
    ) -> tuple[int, int, int | None]:
        """The sizes to use, the index's own where None is given."""
        return (
            self.beam_size if beam_size is None else _arrays.as_count("beam_size", beam_size),
            self.shortlist_size if shortlist_size is None else _arrays.as_count("shortlist_size", shortlist_size),
            None if num_threads is None else _arrays.as_count("num_threads", num_threads),
        )

    def _as_filter(self, given: Any, num_queries: int) -> "_Filter | None":
        """What the core takes for the filter that the caller gives."""
        if given is None or isinstance(given, LabelFilter):
            return given
        if isinstance(given, (list, tuple)) and any(item is None or isinstance(item, LabelFilter) for item in given):
            for at, item in enumerate(given):
                if not (item is None or isinstance(item, LabelFilter)):
                    raise TypeError(f"filter[{at}] must be a LabelFilter or None, got {type(item).__name__}")
            if len(given) != num_queries:
                raise ValueError(f"filter must have {num_queries} filters, one a query, got {len(given)}")
            return list(given)
        if _arrays.is_csr(given):
            return _arrays.as_filter_rows(given, (num_queries, self.num_labels))
        return self.label_filter(given)


def _from_files(files: dict[str, bytes]) -> Index:
    """Unpickles an index that was built."""
    return Index._of(core.Index.from_files(files))


def _from_source(path: str, sha256: str, mmap: bool, prefault: bool) -> Index:
    """Unpickles an index that was loaded, unless the folder holds another one now."""
    loaded = core.Index.load(path, mmap, prefault)
    if loaded.source is None or loaded.source[1] != sha256:
        raise core.EliasIdxError(f"{path}: the index has changed since it was pickled")
    return Index._of(loaded)


def _check_shapes(
    clusters: tuple[int, ...],
    labels: tuple[int, ...],
    biases: tuple[int, int],
    projection: tuple[int, ...] | None,
) -> None:
    for name, shape in (("cluster_weights", clusters), ("label_weights", labels)):
        if 0 in shape:
            raise ValueError(f"{name} must have no dimension of 0, got shape {list(shape)}")
        if shape[0] > _arrays.MAX_IDS:
            raise ValueError(f"{name} must have at most {_arrays.MAX_IDS} rows, got {shape[0]}")
    for name, bias, rows in (("cluster_bias", biases[0], clusters[0]), ("label_bias", biases[1], labels[0])):
        if bias != rows:
            raise ValueError(f"{name} must have {rows} values, got {bias}")
    if projection is None and labels[1] != clusters[1]:
        raise ValueError(
            f"label_weights must have dim {clusters[1]}, as cluster_weights has, got {labels[1]}; "
            "another dim needs a label_projection"
        )
    if projection is not None and projection != (labels[1], clusters[1]):
        expected = [labels[1], clusters[1]]
        raise ValueError(f"label_projection must be [label dim, dim] = {expected}, got {list(projection)}")


def _as_dtype(dtype: Any) -> str:
    if not isinstance(dtype, str):
        raise TypeError(f"dtype must be a str, such as 'float32', got {type(dtype).__name__}")
    return dtype


def _empty_results(num_queries: int, width: int) -> tuple[IntArray, FloatArray]:
    """Uninitialised ids and scores [Q, width]."""
    try:
        shape = (num_queries, width)
        return np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
    except (MemoryError, ValueError):  # ValueError: more than an array can have at all
        raise MemoryError(f"no memory for {num_queries} x {width} results") from None


def _first_if(single: bool, out: tuple[IntArray, FloatArray]) -> tuple[IntArray, FloatArray]:
    """The only rows of results for a single embedding."""
    return (out[0][0], out[1][0]) if single else out


def _readable_bytes(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {' KMGT'[power]}B"
