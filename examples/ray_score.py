"""Scores texts with Ray Data: one actor a worker, each of which opens the model once.

    python examples/ray_score.py MODEL texts.parquet scores --workers 4

The workers of a host map the same index, whose pages are in memory once. Each searches with the threads that it is
given, and Ray is told how many these are.
"""

from __future__ import annotations

import click
import ray

from elias_idx.arrow import Scorer


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.argument("inputs")
@click.argument("out")
@click.option("--keep", default="id", help="column to carry over")
@click.option("--workers", default=2, help="actors, at most")
@click.option("--num-threads", default=1, help="threads of each")
def main(model: str, inputs: str, out: str, keep: str, workers: int, num_threads: int) -> None:
    """Writes labels and scores of the texts in Parquet files INPUTS to the folder OUT."""
    rows = ray.data.read_parquet(inputs, columns=[keep, "text"])
    scored = rows.map_batches(
        Scorer,
        fn_constructor_args=[model],
        fn_constructor_kwargs={"keep": [keep], "num_threads": num_threads},
        batch_format="pyarrow",
        batch_size=4096,
        num_cpus=num_threads,
        # As many as there is room for: reading and writing need a CPU, too.
        concurrency=(1, workers),
    )
    scored.write_parquet(out)


if __name__ == "__main__":
    main()
