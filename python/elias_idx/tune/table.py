"""A sweep as lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from elias_idx._parts import described_parts
from elias_idx._wording import counted
from elias_idx.tune.choice import pareto_front
from elias_idx.tune.measure import Measured, Setting, Sweep

_MIB = 2**20


def lines(sweep: Sweep, chosen: Setting, every: bool = False) -> list[str]:
    """The table of the Pareto front, with the current and the chosen setting; and the memory by part.

    Args:
        sweep: what was measured.
        chosen: the setting that is recommended.
        every: whether all settings are shown.
    """
    front = {result.setting for result in pareto_front(sweep.results)}
    shown = [result for result in sweep.results if every or result.setting in front | {chosen, sweep.current}]
    shown.sort(key=lambda result: (result.microseconds, result.nbytes))
    rows = [_row(result, _marks(result.setting, front, chosen, sweep.current)) for result in shown]
    fused = any(result.setting.num_candidates for result in shown)
    names = ["dtype", "beam", "shortlist", "candidates" if fused else "", *shown[0].metrics]
    header = _joined([*names, "µs/text", "MiB"], "")
    return [
        f"{counted(sweep.num_texts, 'text')}, {counted(len(sweep.results), 'setting')}, of which no other beats the "
        f"{len(front)} marked *",
        f"µs/text: searching for {counted(sweep.k, 'label')} on this machine, {_threads(sweep.num_threads)}; making "
        f"embedding and features takes {sweep.encoding_microseconds:,.0f} more",
        "",
        header,
        *rows,
        "",
        *(f"MiB as {dtype}: {described_parts(parts)}" for dtype, parts in sweep.memory.items()),
    ]


def _threads(num_threads: int | None) -> str:
    return "all CPUs" if num_threads is None else counted(num_threads, "thread")


def _row(result: Measured, marks: str) -> str:
    dtype, beam_size, shortlist_size, num_candidates = result.setting
    numbers = [f"{beam_size:,}", f"{shortlist_size:,}", "" if num_candidates is None else f"{num_candidates:,}"]
    metrics = [f"{value:.2f}" for value in result.metrics.values()]
    return _joined([dtype, *numbers, *metrics, f"{result.microseconds:,.0f}", f"{result.nbytes / _MIB:,.1f}"], marks)


def _joined(cells: Sequence[str], marks: str) -> str:
    first, *rest = cells
    widths = (5, 10, 11, *((len(cells) - 6) * [7]), 9, 10)
    aligned = [first.ljust(9), *(cell.rjust(width) for cell, width in zip(rest, widths, strict=True))]
    return f"{''.join(aligned)}  {marks}".rstrip()


def _marks(setting: Setting, front: set[Setting], chosen: Setting, current: Setting | None) -> str:
    marks = {"*": setting in front, "now": setting == current, "recommended": setting == chosen}
    return " ".join(mark if holds or mark != "*" else " " for mark, holds in marks.items() if holds or mark == "*")
