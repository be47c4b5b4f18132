"""Injects faults of every kind and counts them: `make faults`, or `python -m faults.run --rounds 3 --only kill`."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from faults import disks, files, limits, saves, signals, subjects
from faults.harness import Skipped
from faults.subjects import Subjects

Kind = Callable[[Subjects, Path, int, random.Random], Counter[str]]

KINDS: dict[str, Kind] = {
    "kill saves": saves.kill,
    "fill the disk while saving": disks.fill_while_saving,
    "fill the disk while working": disks.fill_while_working,
    "make the disk read-only": disks.make_read_only,
    "take the folder away": disks.take_away,
    "kill jobs": signals.kill,
    "interrupt commands": signals.interrupt,
    "flip bits": files.flip_bits,
    "cut files off": files.cut_off,
    "limit memory": limits.memory,
    "limit threads": limits.threads,
    "limit open files": limits.open_files,
}


@click.command()
@click.option("--rounds", default=8, show_default=True, help="faults of a kind in each thing that they can be in")
@click.option("--only", multiple=True, help="kinds whose names contain this  [default: all]")
@click.option("--seed", default=0, show_default=True)
def main(rounds: int, only: tuple[str, ...], seed: int) -> None:
    """Injects faults; exit code 1 as soon as one does harm."""
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        made = subjects.make(Path(folder) / "subjects")
        for name, kind in KINDS.items():
            if only and not any(part in name for part in only):
                continue
            work = Path(folder) / name.replace(" ", "-")
            work.mkdir()
            start = time.monotonic()
            try:
                seen = kind(made, work, rounds, random.Random(f"{seed} {name}"))
            except Skipped as reason:
                click.echo(f"{name}: skipped, {reason}")
                continue
            total += (faults := sum(seen.values()))
            outcomes = ", ".join(f"{count:,} {what}" for what, count in sorted(seen.items()))
            click.echo(f"{name}: {faults:,} faults in {time.monotonic() - start:.0f} s: {outcomes}")
            sys.stdout.flush()
    click.echo(f"{total:,} faults injected, none of which did harm")


if __name__ == "__main__":
    main()
