"""A sweep as a picture: precision and recall against time and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from elias_idx.tune.measure import Measured, Setting, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIB = 2**20


def draw(sweep: Sweep, chosen: Setting) -> Figure:
    """A point for each setting, a line through those that are best for their time or memory; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, metric in zip(grid, _shown(sweep), strict=True):
        _draw(row[0], sweep, chosen, metric, _microseconds)
        _draw(row[1], sweep, chosen, metric, _mib)
        row[0].set_ylabel(f"{metric}, %")
    grid[1][0].set_xlabel("µs a text")
    grid[1][1].set_xlabel("MiB")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def _shown(sweep: Sweep) -> tuple[str, str]:
    """The precision and the recall of the most labels."""
    *precisions, recall = sweep.results[0].metrics
    return [name for name in precisions if name.startswith("P")][-1], recall


def _microseconds(result: Measured) -> float:
    return result.microseconds


def _mib(result: Measured) -> float:
    return result.nbytes / _MIB


def _draw(axes: Axes, sweep: Sweep, chosen: Setting, metric: str, cost: Callable[[Measured], float]) -> None:
    """One metric against one cost."""
    for number, dtype in enumerate(sweep.memory):
        own = [result for result in sweep.results if result.setting.dtype == dtype]
        points = [cost(result) for result in own], [result.metrics[metric] for result in own]
        axes.scatter(*points, s=14, color=f"C{number}", alpha=0.6, linewidths=0, label=dtype)
    best = _steps(sweep.results, metric, cost)
    axes.step(
        [cost(result) for result in best], [result.metrics[metric] for result in best],
        where="post", color="0.5", linewidth=1, zorder=0, label="best",
    )  # fmt: skip
    for setting, marker, name in ((sweep.current, "s", "now"), (chosen, "*", "recommended")):
        for result in sweep.results:
            if result.setting == setting:
                at = [cost(result)], [result.metrics[metric]]
                axes.scatter(*at, s=110, marker=marker, facecolors="none", edgecolors="black", label=name)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def _steps(results: Sequence[Measured], metric: str, cost: Callable[[Measured], float]) -> list[Measured]:
    """The results that are better than all cheaper ones, from the cheapest on."""
    best: list[Measured] = []
    for result in sorted(results, key=lambda result: (cost(result), -result.metrics[metric])):
        if not best or result.metrics[metric] > best[-1].metrics[metric]:
            best.append(result)
    return best
