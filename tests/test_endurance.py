"""The endurance run until there was some of everything: it runs, and it would notice a wrong answer."""

from pathlib import Path

import numpy as np
import pytest

import endurance
from elias_idx import Index, SearchResult

LIMIT = 120.0
"""Seconds, of which an idle machine needs a few."""


def had_everything(outcome: endurance.Outcome) -> bool:
    kinds = (*endurance.KINDS, "ensemble", "saves", "loads")
    return outcome.counts["checked"] > 10 and all(outcome.counts[kind] for kind in kinds)


def test_some_of_everything_passes_without_a_failure(tmp_path: Path) -> None:
    outcome = endurance.endure(
        tmp_path, seconds=LIMIT, num_threads=4, num_labels=1000, pause=0.002, enough=had_everything
    )
    assert outcome.failures == []
    assert had_everything(outcome), outcome.counts
    assert outcome.samples


def test_wrong_answers_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Index.search

    def wrong(self: Index, *args: object, **kwargs: object) -> SearchResult:
        labels, scores = right(self, *args, **kwargs)  # type: ignore[arg-type]
        return SearchResult(labels, np.float32(0.98) * scores)

    monkeypatch.setattr(Index, "search", wrong)
    outcome = endurance.endure(
        tmp_path,
        seconds=LIMIT,
        num_threads=2,
        num_labels=1000,
        pause=0.01,
        enough=lambda outcome: bool(outcome.failures),
    )
    assert any("score" in failure for failure in outcome.failures)


def test_growth_compares_the_last_two_quarters() -> None:
    samples = [dict.fromkeys(endurance.GROWTH, 10.0)] * 75 + [dict.fromkeys(endurance.GROWTH, 12.0)] * 25
    assert endurance.growth(samples) == dict.fromkeys(endurance.GROWTH, 2.0)
