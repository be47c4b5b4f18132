"""Scoring on a real local Ray cluster and in a real local Spark session: the examples, as a user starts them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elias_idx.score import score
from helpers_score import results, save_models, text_table

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"
COPIES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, four files of texts, and what the command line makes of them."""
    folder = save_models(tmp_path_factory.mktemp("clusters"))
    texts = pa.concat_tables([text_table().drop_columns("id")] * COPIES)
    texts = texts.add_column(0, "id", pa.array(range(len(texts))))
    (folder / "texts").mkdir()
    for part in range(4):
        rows = len(texts) // 4
        pq.write_table(texts[part * rows : (part + 1) * rows], folder / "texts" / f"{part}.parquet")
    score(folder / "model", [folder / "texts"], folder / "expected", keep=["id"])
    return folder


def run_example(name, folder, out, *options):
    # Ray writes a token to the home folder, which is to be none but the test's.
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "HOME": str(out.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, (folder / "model", folder / "texts", out)), *options]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def check_results(folder, out):
    """The same rows as the command line's, in whatever order and files."""
    found = pq.read_table(out).sort_by("id").select(["id", "labels", "scores"]).to_pylist()
    assert found == results(folder / "expected")


def test_ray_gives_what_the_command_line_gives(folder, tmp_path):
    run_example("ray_score.py", folder, tmp_path / "out", "--workers", "2")
    check_results(folder, tmp_path / "out")


def test_spark_gives_what_the_command_line_gives(folder, tmp_path):
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java 17: apt-get install openjdk-17-jre-headless")
    run_example("spark_score.py", folder, tmp_path / "out")
    check_results(folder, tmp_path / "out")
