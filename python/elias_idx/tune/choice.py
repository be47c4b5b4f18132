"""Which of the settings that were measured are worth a thought, and which one to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from elias_idx.tune.measure import Measured

# Times are compared in steps of this factor: what differs by less differs by chance.
_TIME_STEP = 1.02
# Metrics are compared as they are shown.
_DECIMALS = 2
# Of settings that are about as fast, the smallest is taken.
_ABOUT_AS_FAST = 1.05


def pareto_front(results: Sequence[Measured]) -> list[Measured]:
    """The settings that no other one beats: in no metric, time and memory worse, and better in one of them.

    Metrics count to a hundredth of a percent, times to 2 %.

    Returns:
        They from the fastest to the slowest.
    """
    costs = np.array([_costs(result) for result in results])
    front = [result for result, own in zip(results, costs, strict=True) if not _is_beaten(own, costs)]
    return sorted(front, key=lambda result: (result.microseconds, result.nbytes))


def _costs(result: Measured) -> list[float]:
    """What is compared, less being better."""
    time = np.round(np.log(result.microseconds) / np.log(_TIME_STEP))
    return [*(-round(value, _DECIMALS) for value in result.metrics.values()), float(time), float(result.nbytes)]


def _is_beaten(own: npt.NDArray[np.float64], all_costs: npt.NDArray[np.float64]) -> bool:
    return bool(((all_costs <= own).all(1) & (all_costs < own).any(1)).any())


def cheapest(results: Sequence[Measured], tolerance: float = 0.2, by: Literal["time", "memory"] = "time") -> Measured:
    """The cheapest setting that is nearly as good as the best one.

    Args:
        results: one or more settings.
        tolerance: by how much, in percentage points, each metric may be below that of the setting whose metrics are the
            best on average.
        by: "time", of settings within 5 % of the fastest one the smallest; or "memory", of the smallest the fastest.

    Raises:
        ValueError: the tolerance is below 0, or there is another kind of cost.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if by not in ("time", "memory"):
        raise ValueError(f"by must be 'time' or 'memory', got {by!r}")
    best = max(results, key=lambda result: sum(result.metrics.values()))
    good = [
        result
        for result in results
        if all(value >= best.metrics[name] - tolerance for name, value in result.metrics.items())
    ]
    if by == "time":
        limit = _ABOUT_AS_FAST * min(result.microseconds for result in good)
        good = [result for result in good if result.microseconds <= limit]
    return min(good, key=lambda result: (result.nbytes, result.microseconds))
