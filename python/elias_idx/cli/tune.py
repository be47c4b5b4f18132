"""The command `elias-idx tune`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, Literal

import click
from tqdm import tqdm

from elias_idx.cli.common import DATA, FILE, FOLDER, check_output, cli, explained, load_with_rows, whole_numbers
from elias_idx.cli.drawing import check_drawing, save_figure
from elias_idx.index import Dtype
from elias_idx.tune import Grid, Setting, Sweep, cheapest, sweep
from elias_idx.tune.measure import with_setting


def _dtypes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Reads dtypes with a comma between each two."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not set(names) <= set(typing.get_args(Dtype)):
        known = ", ".join(typing.get_args(Dtype))
        raise click.BadParameter(f"{value!r} must be some of {known}, with a comma between each two")
    return names


@cli.command(
    epilog="""\b
Examples:
  elias-idx tune model dev.jsonl
  elias-idx tune model dev.jsonl --plot tuning --num-threads 1
  elias-idx tune model dev.jsonl --cheapest memory --tolerance 0.5 --apply --out small"""
)
@click.argument("model", type=FOLDER)
@click.argument("dev_data", metavar="DEV", type=DATA)
@click.option("--embeddings", type=FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option(
    "--k", type=click.IntRange(min=1), default=100, show_default=True, help="labels a row that will be asked for"
)
@click.option("--beam-sizes", callback=whole_numbers, help="beams to try, as in 10,20,40  [default: 5 to 80]")
@click.option("--shortlist-sizes", callback=whole_numbers, help="shortlists to try  [default: 500 to 4,000]")
@click.option(
    "--num-candidates",
    callback=whole_numbers,
    help="candidates of the fusion to try  [default: 24, 100 and the model's]",
)
@click.option(
    "--dtypes", callback=_dtypes, help="what to store label weights as  [default: the model's and smaller ones]"
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.2,
    show_default=True,
    help="percentage points that each metric may lose against the best setting",
)
@click.option(
    "--cheapest", "cost", type=click.Choice(["time", "memory"]), default="time", show_default=True, help="what counts"
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="times that each is timed")
@click.option("--max-texts", type=click.IntRange(min=1), default=5000, show_default=True, help="rows at most")
@click.option("--all", "every", is_flag=True, help="print all settings, not the best ones alone")
@click.option("--plot", type=FOLDER, help="pictures to draw: PLOT.svg and PLOT.png")
@click.option("--apply", "applies", is_flag=True, help="store the recommended setting in the model")
@click.option("--out", type=FOLDER, help="with --apply, folder of the new model; by default MODEL is replaced")
@click.option("--overwrite", is_flag=True, help="replace a model at --out")
@click.option("--num-threads", type=click.IntRange(min=1), help="by default all CPUs that the process may use")
@explained
def tune(
    model: Path,
    dev_data: Path,
    embeddings: Path | None,
    beam_sizes: tuple[int, ...] | None,
    shortlist_sizes: tuple[int, ...] | None,
    num_candidates: tuple[int, ...] | None,
    dtypes: tuple[Dtype, ...] | None,
    tolerance: float,
    cost: Literal["time", "memory"],
    every: bool,
    plot: Path | None,
    applies: bool,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Measures a model with many settings on DEV, labelled rows that it was not trained on, and recommends one.

    Prints precision, recall, time and memory of the settings that no other one beats, and marks the one that the model
    has now and the cheapest one that is nearly as good as the best. With --apply that becomes the model's own.
    """
    if (out or overwrite) and not applies:
        raise click.UsageError("--out and --overwrite say where --apply stores the setting: give it, too")
    if plot is not None:
        check_drawing(plot)
    if applies:
        check_output(model, out, overwrite)
    loaded, data = load_with_rows(model, dev_data, embeddings, mmap=False)
    grid = Grid(beam_sizes, shortlist_sizes, num_candidates, dtypes)
    with tqdm(desc="tune", unit="search", disable=None) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        try:
            measured = sweep(loaded, data, grid, on_search=show, **options)
        except ValueError as error:  # weights that a dtype can't be made of
            raise click.ClickException(str(error)) from error
    chosen = cheapest(measured.results, tolerance, cost).setting
    _tell(measured, chosen, every, plot)
    if (step := 100 / measured.num_texts) > tolerance:
        click.echo(
            f"warning: one text makes {step:.2f} points of P@1, more than --tolerance {tolerance:g}: the "
            "recommendation rests on chance; take more texts",
            err=True,
        )
    if applies:
        if chosen != measured.current:
            loaded = with_setting(loaded, chosen)
        loaded.save(out or model, overwrite=overwrite or out is None)
        click.echo(f"{out or model}: searches as recommended from now on", err=True)
        if loaded.has_calibration:
            click.echo("its calibration is that of the scores before: calibrate it again", err=True)


def _tell(measured: Sweep, chosen: Setting, every: bool, plot: Path | None) -> None:
    from elias_idx.tune.plot import draw
    from elias_idx.tune.table import lines

    click.echo("\n".join(lines(measured, chosen, every)))
    if plot is not None:
        figure = draw(measured, chosen)
        for kind in ("svg", "png"):
            save_figure(figure, plot.with_name(f"{plot.name}.{kind}"))
