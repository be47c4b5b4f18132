"""How well elias_idx and its peers predict, on the same training and test texts.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py run icd10cm path/to/eurlex57k path/to/tibkat
    python benchmarks/accuracy.py table   # brings the README's table up to date

Each part runs once, in a process of its own; an interrupted run goes on where it was. A data set is "icd10cm", the
demo's, or a folder with train.jsonl and test.jsonl (or dev.jsonl), perhaps packed by xz or gzip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.accuracy_parts import PARTS, run_part

_RESULTS = Path(__file__).parent / "results"
_WORK = Path(__file__).parents[1] / "artifacts" / "accuracy"


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measures accuracy and writes the README's table of it."""


@main.command()
@click.argument("sources", metavar="DATA...", nargs=-1, required=True)
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="what to run; by default all")
@click.option("--again", is_flag=True, help="run these parts even if their results are there")
@click.option("--threads", default=2, type=click.IntRange(1), help="CPU threads of each part")
@click.option("--work", type=click.Path(path_type=Path), default=_WORK, help="for the parts' results and models")
@click.option("--pecos-python", default=sys.executable, help="a Python that has libpecos, which wants NumPy < 2")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="for the dated results")
def run(
    sources: tuple[str, ...],
    parts: tuple[str, ...],
    again: bool,
    threads: int,
    work: Path,
    pecos_python: str,
    out: Path,
) -> None:
    """Runs the parts that have no results yet on each data set, and writes dated results of all parts."""
    for source in sources:
        for name in parts or PARTS:
            click.echo(f"{source}: {name}", err=True)
            run_part(name, source, work, threads, pecos_python, again)


if __name__ == "__main__":
    main()
