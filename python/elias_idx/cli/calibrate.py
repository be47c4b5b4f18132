"""The command `elias-idx calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from elias_idx.calibration import Calibration, Reliability, cross_calibrated, reliability
from elias_idx.cli.common import DATA, FILE, FOLDER, check_output, cli, explained, load_with_rows
from elias_idx.cli.drawing import check_drawing, save_figure

# What the figures are about: labels that people look at.
_SHOWN_RANKS = 10


@cli.command(
    epilog="""\b
Examples:
  elias-idx calibrate model dev.jsonl
  elias-idx calibrate model dev.jsonl --out calibrated --plot reliability.svg"""
)
@click.argument("model", type=FOLDER)
@click.argument("dev_data", metavar="DEV", type=DATA)
@click.option("--embeddings", type=FILE, help="the rows' embeddings (.npy, [N, D]) for the precomputed encoder")
@click.option("--out", type=FOLDER, help="folder of the calibrated model; by default MODEL is replaced")
@click.option("--overwrite", is_flag=True, help="replace a model at --out")
@click.option("--plot", type=FOLDER, help="picture to draw: how often labels of a score are right (.svg, .png, .pdf)")
@click.option("--num-threads", type=click.IntRange(min=1), help="by default all CPUs that the process may use")
@explained
def calibrate(
    model: Path,
    dev_data: Path,
    embeddings: Path | None,
    out: Path | None,
    overwrite: bool,
    plot: Path | None,
    num_threads: int | None,
) -> None:
    """Fits probabilities to a model's scores on DEV, labelled rows that it was not trained on.

    Prints the expected calibration error of the 10 best labels of each row before and after: how far off the scores
    are as probabilities, on average. For the second figure each row's calibration is fitted on other rows.
    """
    if plot is not None:
        _check_plot(plot)
    check_output(model, out, overwrite)
    loaded, data = load_with_rows(model, dev_data, embeddings)
    pairs = loaded.scored_pairs(data, num_threads=num_threads)
    probabilities = cross_calibrated(pairs)
    shown = pairs.ranks < _SHOWN_RANKS
    before = reliability(pairs.scores[shown], pairs.relevances[shown])
    after = reliability(probabilities[shown], pairs.relevances[shown])
    fitted = Calibration.fit(pairs.scores, pairs.relevances)
    loaded.with_calibration(fitted).save(out or model, overwrite=overwrite or out is None)
    click.echo(f"expected calibration error of scores         {100 * before.error:6.2f} %")
    click.echo(f"expected calibration error of probabilities  {100 * after.error:6.2f} %")
    if plot is not None:
        _draw(plot, before, after)
    click.echo(f"{out or model}: fitted on {len(data):,} rows", err=True)


def _check_plot(path: Path) -> None:
    """Refuses, before any work, a picture that can't be drawn."""
    if path.suffix not in (kinds := (".svg", ".png", ".pdf")):
        raise click.UsageError(f"--plot must end in {', '.join(kinds)}: got {path}")
    check_drawing(path)


def _draw(path: Path, before: Reliability, after: Reliability) -> None:
    """Draws both reliabilities beside the diagonal, on which probabilities are right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, found in (("scores", before), ("probabilities", after)):
        label = f"{name}: error {100 * found.error:.2f} %"
        axes.plot(found.probabilities, found.relevances, marker="o", markersize=4, label=label)
    axes.set(xlabel="score or probability", ylabel="share of right labels", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False)
    save_figure(figure, path)
