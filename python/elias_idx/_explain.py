"""Explanations in words."""

from typing import TYPE_CHECKING, NamedTuple

from elias_idx.results import LabelExplanation, LabelPath

if TYPE_CHECKING:
    from elias_idx._core import _Explanation


class Sizes(NamedTuple):
    """How far a search went for a query."""

    beam: int
    """Clusters in the beam."""
    reached: int
    """Labels that these lead to, of those that the filter allows."""
    shortlist: int
    """Labels in the shortlist."""


def explanation(found: "_Explanation", name: str | None, sizes: Sizes) -> LabelExplanation:
    """What the core says of a label, with names and words."""
    label, allowed, paths, path_score, logit, probability, score, path_rank, rank = found
    ways = tuple(LabelPath(*path) for path in paths)
    return LabelExplanation(
        label=label,
        name=name,
        paths=ways,
        path_score=path_score,
        logit=logit,
        probability=probability,
        score=score,
        in_beam=any(way.in_beam for way in ways),
        in_shortlist=rank is not None,
        rank=rank,
        reason=_reason(allowed, ways, path_rank, rank, sizes),
    )


def _reason(allowed: bool, paths: tuple[LabelPath, ...], path_rank: int | None, rank: int | None, sizes: Sizes) -> str:
    if not allowed:
        return "the filter does not allow it"
    if rank is not None:
        return f"ranks {_ordinal(rank)} of the {sizes.shortlist:,} labels in the shortlist"
    if path_rank is not None:
        return (
            f"reached, but cut: its path ranks {_ordinal(path_rank)} of {sizes.reached:,}, "
            f"the shortlist holds {sizes.shortlist:,}"
        )
    if not paths:
        return "not reached: no cluster leads to it"
    ranks = sorted(path.cluster_rank for path in paths)
    if len(ranks) == 1:
        clusters = f"its only cluster ranks {_ordinal(ranks[0])}"
    elif len(ranks) <= _MOST_LISTED:
        clusters = f"its clusters rank {', '.join(map(_ordinal, ranks[:-1]))} and {_ordinal(ranks[-1])}"
    else:
        clusters = f"the best of its {len(ranks):,} clusters ranks {_ordinal(ranks[0])}"
    return f"not reached: {clusters}, the beam holds {sizes.beam:,}"


_MOST_LISTED = 4


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..., 11th, ..."""
    suffix = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"
