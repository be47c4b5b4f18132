"""Scores texts with Spark: each of its Python workers opens the model once.

    spark-submit examples/spark_score.py MODEL texts.parquet scores

Spark runs as many tasks on a host as that has cores, so each searches with one thread; all map the same index, whose
pages are in memory once.
"""

from __future__ import annotations

import click
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from elias_idx.arrow import Scorer


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.argument("inputs")
@click.argument("out")
@click.option("--keep", default="id", help="column to carry over")
def main(model: str, inputs: str, out: str, keep: str) -> None:
    """Writes labels and scores of the texts in Parquet files INPUTS to the folder OUT."""
    spark = SparkSession.builder.appName("elias_idx").getOrCreate()
    rows = spark.read.parquet(inputs).select(keep, "text")
    scorer = Scorer(model, keep=[keep], num_threads=1)
    schema = from_arrow_schema(scorer.schema(to_arrow_schema(rows.schema)))
    rows.mapInArrow(scorer.map, schema).write.parquet(out)


if __name__ == "__main__":
    main()
