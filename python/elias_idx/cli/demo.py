"""The command `elias-idx demo`."""

from __future__ import annotations

from pathlib import Path

import click

from elias_idx.cli.common import FOLDER, cli, explained


@cli.command(
    epilog="""\b
Example:
  elias-idx demo --out artifacts/demo"""
)
@click.option("--out", type=FOLDER, default=Path("artifacts/demo"), show_default=True, help="folder to work in")
@explained
def demo(out: Path) -> None:
    """Trains on ICD-10-CM, searches its test texts and prints how well that went."""
    from elias_idx.demo.run import run_demo

    run_demo(out)
