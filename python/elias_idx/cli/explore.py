"""The command `elias-idx explore`."""

from __future__ import annotations

from pathlib import Path

import click

from elias_idx.cli.common import cli, explained
from elias_idx.model import load_single


@cli.command(
    epilog="""\b
Examples:
  elias-idx explore model
  elias-idx explore model --port 8000"""
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="address to listen at; 0.0.0.0 lets other machines in"
)
@click.option("--port", type=click.IntRange(1, 65535), help="by default the first free one from 7860 on")
@explained
def explore(model: Path, host: str, port: int | None) -> None:
    """Serves a local web page that shows what a model finds for a text and why, and what its clusters hold."""
    from elias_idx.explore.page import serve

    blocks, address = serve(load_single(model), host=host, port=port)
    click.echo(f"{address} shows {model}; Ctrl-C ends it", err=True)
    blocks.block_thread()
