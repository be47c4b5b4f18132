"""The parts of the page as HTML. All that comes from a model or a user is escaped here, by `escaped`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from elias_idx._wording import counted
from elias_idx.explanation import Explanation, FusedScore
from elias_idx.explore.clusters import MOST_CLUSTERS, DividedLabel, Related
from elias_idx.index import Index
from elias_idx.results import LabelExplanation

_SHOWN_PATHS = 5

# What the columns of evidence say, by where they come from.
_SOURCES = {
    "dense model": {
        "logit": "classifier's logit",
        "log_path": "log of the path score",
        "found": "found by the dense search",
        "log_dense": "log of the dense score",
        "log_dense_gap": "the same, less the best label's",
    },
    "sparse ranker": {
        "margin": "margin",
        "log_hinge": "log of its hinge score",
        "margin_gap": "margin, less the best label's",
    },
    "nearest training texts": {
        "vote_share": "share of their votes",
        "log_votes": "log of votes",
        "nearest": "cosine of the nearest with the label",
        "best_neighbour": "cosine of the nearest of all",
    },
    "the label itself": {
        "log_frequency": "log of 1 + its training texts",
        "name_overlap": "cosine of its own text",
    },
    "labels that go together": {"log_cooccurrence": "log of how often it goes with the best ones"},
}

CSS = """
.ei-row { display: grid; grid-template-columns: minmax(0, 22rem) 1fr 4.5rem; gap: .6rem; align-items: center;
  width: 100%; padding: .15rem .4rem; border: 0; border-radius: .3rem; background: none; text-align: left;
  font: inherit; color: inherit; }
button.ei-row, button.ei-link { cursor: pointer; }
button.ei-row:hover, button.ei-row:focus-visible { background: color-mix(in srgb, currentColor 8%, transparent); }
.ei-name { overflow-wrap: anywhere; }
.ei-bar { height: .8rem; border-radius: .2rem; background: color-mix(in srgb, currentColor 8%, transparent); }
.ei-bar > span { display: block; height: 100%; border-radius: .2rem; background: #2a78b8; }
.ei-number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.ei table { border-collapse: collapse; margin: .4rem 0 1rem; }
.ei tr td, .ei tr th { border: 0; padding: .1rem .7rem .1rem 0; text-align: left; font-weight: normal;
  overflow-wrap: anywhere; }
.ei th { opacity: .65; }
.ei tr td.ei-number { text-align: right; }
.ei h3 { margin: .8rem 0 .2rem; font-weight: 600; }
.ei p { margin: .2rem 0; }
button.ei-link { padding: 0; border: 0; background: none; font: inherit; color: #2a78b8; text-decoration: underline; }
"""


def escaped(text: str) -> str:
    """The text as HTML that shows it, also within attributes and within the templates that Gradio makes of values."""
    return "".join(f"&#{ord(sign)};" if sign in "$`{}\\" else sign for sign in html.escape(text))


def name_of(index: Index, label: int) -> str:
    """A label's name as HTML."""
    return escaped(str(index.names(label)))


def predictions(index: Index, labels: Sequence[int], scores: Sequence[float]) -> str:
    """A button with a bar for each label, best first."""
    if not labels:
        return "<p>Nothing was found.</p>"
    rows = (
        _bar_row(name_of(index, label), score, f"{score:.3f}", f'data-label="{label}"')
        for label, score in zip(labels, scores, strict=True)
    )
    return f'<div class="ei">{"".join(rows)}</div>'


def _bar_row(name: str, share: float, number: str, attribute: str) -> str:
    return (
        f'<button type="button" class="ei-row" {attribute}><span class="ei-name">{name}</span>{_bar(share)}'
        f'<span class="ei-number">{number}</span></button>'
    )


def _bar(share: float) -> str:
    """A bar, from empty for 0 to full for 1."""
    return f'<span class="ei-bar"><span style="width:{100 * share:.1f}%"></span></span>'


def why(index: Index, explanation: Explanation, others: Related | None) -> str:
    """Why a label was found.

    Args:
        index: knows the names.
        explanation: of the label.
        others: labels of its best cluster that are like it.
    """
    dense = explanation.dense
    parts = [
        f"<h3>{name_of(index, explanation.label)}</h3>",
        f"<p>Score {explanation.score:.4f}; in the dense search: {escaped(dense.reason)}.</p>",
    ]
    if explanation.fused is not None:
        parts.append(_fused(explanation.fused))
    elif explanation.has_fusion:
        parts.append("<p>It is none of the fusion's candidates.</p>")
    parts.append(_dense(dense))
    if others is not None and dense.best_path is not None and len(others.labels):
        rows = [
            [_label_link(index, label), f"{cosine:.2f}"]
            for label, cosine in zip(others.labels.tolist(), others.cosines.tolist(), strict=True)
        ]
        parts.append(f"<h3>Labels of cluster {dense.best_path.cluster} that are most like it</h3>")
        parts.append(_table(["label", "cosine of classifiers"], rows))
    return f'<div class="ei">{"".join(parts)}</div>'


def _dense(dense: LabelExplanation) -> str:
    rows = [
        [
            _cluster_link(path.cluster),
            f"{path.cluster_rank:,}" + ("" if path.in_beam else ", not in the beam"),
            f"{path.cluster_score:.4f}",
            f"{path.weight:.4f}",
            f"{path.score:.4f}",
        ]
        for path in dense.paths[:_SHOWN_PATHS]
    ]
    more = len(dense.paths) - len(rows)
    return (
        "<h3>Dense model</h3>"
        f"<p>Path {dense.path_score:.4f} × classifier {dense.probability:.4f} (logit {dense.logit:.2f}) = "
        f"{dense.score:.4f}</p>"
        + _table(["path through", "rank", "its score", "× weight of the edge", "= path score"], rows)
        + (f"<p>and {counted(more, 'worse path')}</p>" if more > 0 else "")
    )


def _fused(fused: FusedScore) -> str:
    by_name = {term.name: term for term in fused.terms}
    rows = []
    for source, columns in _SOURCES.items():
        # The fusion doesn't use evidence of weight 0: that of parts that the index lacks, for one.
        used = [(words, by_name[name]) for name, words in columns.items() if by_name[name].weight]
        for number, (words, term) in enumerate(used):
            shown = f"{term.value:.3f}", f"{term.weight:+.3f}", f"{term.share:+.3f}"
            rows.append(["" if number else source, words, *shown])
    rows.append(["every label", "", "", "", f"{fused.bias:+.3f}"])
    if fused.trees:
        rows.append(["trees of all of this", "", "", "", f"{fused.trees:+.3f}"])
    table = _table(["fusion of", "evidence", "value", "× weight", "adds"], rows)
    total = f"<p><b>Sum {fused.logit:+.3f}, as a probability {fused.score:.4f}</b></p>"
    return f"<h3>Fusion</h3>{table}{total}"


class ClusterSizes(NamedTuple):
    """How many labels a cluster leads to, of how many it is the best one, and how many began in it as far as known."""

    num_labels: int
    num_best: int
    num_began: int


def cluster(
    index: Index,
    number: int,
    sizes: ClusterSizes,
    top: Iterable[tuple[int, float, int]],
    sharing: Sequence[tuple[int, int]],
) -> str:
    """What a cluster leads to, and where else the labels hang that began in it.

    Args:
        index: knows the names.
        number: the cluster's id.
        sizes: its sizes.
        top: the labels with the largest weights, these, and the labels' training texts.
        sharing: other clusters, and how many of the labels that began in this one they lead to.
    """
    rows = [[_label_link(index, label), f"{weight:.4f}", f"{frequency:,}"] for label, weight, frequency in top]
    began = f"; {counted(sizes.num_began, 'label')} began in it" if sizes.num_began else ""
    shared = ""
    if sharing:
        shared = "<h3>Where labels that began here hang too</h3>" + _table(
            ["cluster", f"of {counted(sizes.num_began, 'label')}"],
            [[_cluster_link(other), f"{number_of:,}"] for other, number_of in sharing],
        )
    return (
        f'<div class="ei"><h3>Cluster {number}</h3><p>leads to {counted(sizes.num_labels, "label")}, and is the best '
        f"cluster of {sizes.num_best:,} of them{began}.</p>"
        f"<h3>Labels with the largest weights</h3>{_table(['label', 'weight', 'training texts'], rows)}{shared}</div>"
    )


def label_edges(index: Index, label: int, home: int) -> str:
    """The clusters that lead to a label, and the one that it began in; -1 if that isn't known."""
    clusters, weights = index.clusters(label)
    rows = [
        [_cluster_link(cluster), f"{weight:.4f}"]
        for cluster, weight in zip(clusters.tolist(), weights.tolist(), strict=True)
    ]
    began = f"; began in {_cluster_link(home)}" if home >= 0 else ""
    return (
        f'<div class="ei"><h3>{name_of(index, label)}</h3><p>hangs on {counted(len(rows), "cluster")}{began}</p>'
        + _table(["cluster", "weight"], rows)
        + "</div>"
    )


def largest_clusters(numbers: Iterable[int], sizes: Iterable[int]) -> str:
    """Clusters and their sizes as bars."""
    pairs = list(zip(numbers, sizes, strict=True))
    largest = max((size for _, size in pairs), default=1)
    rows = (
        _bar_row(f"cluster {number}", size / max(largest, 1), f"{size:,}", f'data-cluster="{number}"')
        for number, size in pairs
    )
    return f'<div class="ei"><h3>Clusters that most labels hang on most</h3>{"".join(rows)}</div>'


class Moves(NamedTuple):
    """Labels whose first cluster is known, those of them that hang on others, and to which one of these leads more."""

    num_known: int
    num_divided: int
    num_moved: int


def spread_of_labels(index: Index, counts: Sequence[int], moves: Moves, most_divided: Iterable[DividedLabel]) -> str:
    """How many clusters labels hang on, and which others than those that they began in lead to them.

    Args:
        index: knows the names.
        counts: labels with 0, 1, ... clusters; the last have as many or more.
        moves: from the clusters that labels began in.
        most_divided: the labels with the largest weights of other clusters.
    """
    most = max(1, *counts)
    bars = "".join(
        f'<div class="ei-row"><span>{"at least " * (number == MOST_CLUSTERS)}{counted(number, "cluster")}</span>'
        f'{_bar(count / most)}<span class="ei-number">{count:,}</span></div>'
        for number, count in enumerate(counts)
        if count
    )
    rows = [
        [_label_link(index, label), _cluster_link(home), f"{weight:.4f}", _cluster_link(other), f"{other_weight:.4f}"]
        for label, home, weight, other, other_weight in most_divided
    ]
    known = "Which one that was, this model doesn't tell."
    if moves.num_known:
        known = (
            f"Of {counted(moves.num_known, 'label')}, {moves.num_divided:,} hang on other clusters than the first, "
            f"{moves.num_moved:,} of them more than on it."
        )
    divided = ""
    if rows:
        divided = "<h3>Largest weights of other clusters than the first</h3>" + _table(
            ["label", "began in", "weight", "best other", "weight"], rows
        )
    return (
        '<div class="ei"><h3>Labels by the clusters that they hang on</h3>'
        "<p>Training starts with every label in one cluster; then it learns which others lead to it. "
        f"{known}</p>{bars}{divided}</div>"
    )


def _label_link(index: Index, label: int) -> str:
    return f'<button type="button" class="ei-link" data-label="{label}">{name_of(index, label)}</button>'


def _cluster_link(number: int) -> str:
    return f'<button type="button" class="ei-link" data-cluster="{number}">cluster {number}</button>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; all but the first column are numbers, unless they are words."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: str) -> str:
    is_number = cell.lstrip("+-").replace(",", "").replace(".", "").isdecimal()
    return f'<td class="ei-number">{cell}</td>' if is_number else f"<td>{cell}</td>"
