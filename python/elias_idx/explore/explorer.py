"""What the page shows of a model."""

from __future__ import annotations

import numpy as np

from elias_idx.errors import ConfigError
from elias_idx.explore import render
from elias_idx.explore.clusters import hanging, related, top_labels
from elias_idx.model import Model

NUM_LABELS = 15
_NUM_RELATED = 8
_NUM_LISTED = 25
_NUM_CLUSTERS = 10


class Explorer:
    """What the page shows of a model, as HTML.

    Args:
        model: one that takes texts, with label names.

    Raises:
        ConfigError: the model takes embeddings, which nobody can type.
        DataError: it takes features, or its index has no label names.
    """

    def __init__(self, model: Model) -> None:
        if model.takes_embeddings:
            raise ConfigError("this model takes embeddings: there is no text to type")
        model._check_names()
        model.vectorise(["a text"])  # which a model that takes features refuses
        self.model, self.index = model, model.index
        self.hanging = hanging(self.index, model.initial_clusters)
        best = self.hanging.best
        self.num_best = np.bincount(best[best >= 0], minlength=self.index.num_clusters)

    def predictions(self, text: str) -> str:
        """The best labels of a text."""
        if not text.strip():
            return "<p>Type a text first.</p>"
        labels, scores = self.model._search([text], NUM_LABELS, num_threads=None, fusion=True)
        there = labels[0] >= 0
        return render.predictions(self.index, labels[0][there].tolist(), scores[0][there].tolist())

    def why(self, text: str, label: int) -> str:
        """Why a label was found for a text."""
        (explanation,) = self.model.explain(text, [label])
        best = explanation.dense.best_path
        others = None if best is None else related(self.index, best.cluster, label, _NUM_RELATED)
        return render.why(self.index, explanation, others)

    def cluster(self, number: int) -> str:
        """A cluster's labels."""
        if not 0 <= number < self.index.num_clusters:
            return f"<p>There are clusters 0 to {self.index.num_clusters - 1:,}.</p>"
        counts = self.model.label_counts
        labels, weights = top_labels(self.index, number, counts, _NUM_LISTED)
        top = list(zip(labels.tolist(), weights.tolist(), counts[labels].tolist(), strict=True))
        others, numbers = self.hanging.sharing(number, _NUM_CLUSTERS)
        sharing = list(zip(others.tolist(), numbers.tolist(), strict=True))
        sizes = render.ClusterSizes(
            num_labels=len(self.index.labels(number).labels),
            num_best=int(self.num_best[number]),
            num_began=len(self.hanging.of_home(number)),
        )
        return render.cluster(self.index, number, sizes, top, sharing)

    def label(self, label: int) -> str:
        """A label's clusters."""
        return render.label_edges(self.index, label, int(self.hanging.homes[label]))

    def named(self, name: str) -> str:
        """The clusters of the label with a name."""
        try:
            (label,) = self.index._label_ids([name.strip()])
        except ValueError:
            return f"<p>No label is called {render.escaped(name)}.</p>"
        return self.label(int(label))

    def largest(self) -> str:
        """The clusters that the most labels hang on."""
        order = np.argsort(-self.num_best, kind="stable")[:_NUM_CLUSTERS]
        return render.largest_clusters(order.tolist(), self.num_best[order].tolist())

    def spread(self) -> str:
        """How labels hang on clusters."""
        hang = self.hanging
        moves = render.Moves(int((hang.homes >= 0).sum()), int(hang.is_divided.sum()), int(hang.has_moved.sum()))
        counts, most_divided = hang.by_number().tolist(), hang.most_divided(_NUM_LISTED)
        return render.spread_of_labels(self.index, counts, moves, most_divided)
