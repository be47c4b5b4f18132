"""How well elias_idx and its peers predict, on the same training and test texts.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py run icd10cm path/to/eurlex57k path/to/tibkat
    python benchmarks/accuracy.py table   # brings the README's table up to date

Each part runs once, in a process of its own; an interrupted run goes on where it was. A data set is "icd10cm", the
demo's, or a folder with train.jsonl and test.jsonl (or dev.jsonl), perhaps packed by xz or gzip.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any

import click

from harness import accuracy_report, environment
from harness.accuracy_parts import PARTS, QUICK_PARTS, run_part
from harness.accuracy_results import measure
from harness.processes import in_process
from harness.texts import load_texts, set_name

_RESULTS = Path(__file__).parent / "results"
_WORK = Path(__file__).parents[1] / "artifacts" / "accuracy"
_README = Path(__file__).parents[1] / "README.md"


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measures accuracy and writes the README's table of it."""


@main.command()
@click.argument("sources", metavar="DATA...", nargs=-1, required=True)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="what to run; by default all that is quick"
)
@click.option("--again", is_flag=True, help="run these parts even if their results are there")
@click.option("--only-report", is_flag=True, help="run nothing: write the results of the parts that ran")
@click.option("--threads", default=2, type=click.IntRange(1), help="CPU threads of each part")
@click.option("--work", type=click.Path(path_type=Path), default=_WORK, help="for the parts' results and models")
@click.option("--pecos-python", default=sys.executable, help="a Python that has libpecos, which wants NumPy < 2")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, help="for the dated results")
def run(
    sources: tuple[str, ...],
    parts: tuple[str, ...],
    again: bool,
    only_report: bool,
    threads: int,
    work: Path,
    pecos_python: str,
    out: Path,
) -> None:
    """Runs the parts that have no results yet on each data set, and writes dated results of all parts."""
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": _command(sources),
        "machine": environment.machine(),
        "versions": environment.versions(("elias_idx", "numpy", "scipy", "scikit-learn", "torch")),
    }
    for source in sources:
        for name in () if only_report else parts or QUICK_PARTS:
            click.echo(f"{source}: {name}", err=True)
            run_part(name, source, work, threads, pecos_python, again)
    results["data_sets"] = [in_process(_measure, source, work) for source in sources]
    results["load_average_at_end"] = os.getloadavg()[0]
    click.echo(_write(results, out))


def _write(results: dict[str, Any], out: Path) -> str:
    """Writes the dated files; returns the report."""
    stem = out / f"accuracy-{results['date']}"
    out.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report = "\n".join(accuracy_report.markdown(results)) + "\n"
    stem.with_suffix(".md").write_text(report, encoding="utf-8")
    return report


@main.command()
@click.option("--check", is_flag=True, help="change nothing; fail if the README has another table")
def table(check: bool) -> None:
    """Writes the table of the newest results into the README, between its markers."""
    newest = max(_RESULTS.glob("accuracy-*.json"))
    results = json.loads(newest.read_text(encoding="utf-8"))
    old = _README.read_text(encoding="utf-8")
    new = accuracy_report.with_table(old, results)
    if check and new != old:
        raise click.ClickException(f"the README's table is not that of {newest.name}: run this without --check")
    _README.write_text(new, encoding="utf-8")


def _command(sources: tuple[str, ...]) -> str:
    """The command without folders, which are others elsewhere; parts say themselves when and how they ran."""
    return shlex.join(["python", "benchmarks/accuracy.py", "run", *map(set_name, sources)])


def _measure(source: str, work: Path) -> dict[str, Any]:
    return measure(load_texts(source), work)


if __name__ == "__main__":
    main()
