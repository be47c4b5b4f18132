"""How far a job is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from elias_idx.score.parts import Scored

_SECONDS = 10.0


class Progress:
    """Shows rows done, rows a second and the time left.

    Args:
        rows: rows that earlier runs have done.
        say: prints a line, where there is no terminal.
    """

    def __init__(self, rows: int, say: Callable[[str], object]) -> None:
        self._rows = self._rows_before = rows
        self._say = say
        self._start = self._said = time.monotonic()
        self._bar = tqdm(desc="score", unit=" rows", unit_scale=True, initial=rows, disable=None)

    def counted(self, results: Iterator[Scored]) -> Iterator[Scored]:
        """The same results, which are counted as they pass."""
        first: Scored | None = None
        rows_since = 0
        for result in results:
            self._rows += len(result.rows)
            if first is None:
                first = result
            else:
                rows_since += len(result.rows)
            # Bytes of inputs tell how many rows there will be; where this run began among them, the first result tells.
            share = result.share - first.share
            self._show(len(result.rows), round(rows_since / share * (1 - result.share)) if share else None)
            yield result

    def _show(self, rows: int, left: int | None) -> None:
        if not self._bar.disable:
            self._bar.total = None if left is None else self._rows + left
            self._bar.update(rows)
        elif (now := time.monotonic()) - self._said >= _SECONDS:
            self._said = now
            rate = (self._rows - self._rows_before) / (now - self._start)
            line = f"{self._rows:,} rows, {rate:,.0f} rows/s"
            self._say(line if left is None else f"{line}, {tqdm.format_interval(left / rate)} left")

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
