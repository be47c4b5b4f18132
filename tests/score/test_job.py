"""Scoring jobs: from files to parts, interrupted, resumed and refused."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from elias_idx.arrow import Scorer
from elias_idx.cli.commands import cli
from elias_idx.errors import ConfigError, FormatError
from elias_idx.score import parts as parts_module
from elias_idx.score import score
from helpers_score import DIM, contents, embedding_array, predicted, results, save_models, searched, text_table

SIZES = {"batch_rows": 8, "part_rows": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def texts(tmp_path):
    """Two files of 70 and 30 rows."""
    (tmp_path / "in").mkdir()
    pq.write_table(text_table()[:70], tmp_path / "in" / "a.parquet")
    pq.write_table(text_table()[70:], tmp_path / "in" / "b.parquet")
    return tmp_path / "in"


def run(*arguments, expect=0):
    result = CliRunner().invoke(cli, ["score", *map(str, arguments)])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result


@pytest.mark.parametrize("num_threads", [None, 1, 2, 5])
def test_results_come_in_the_order_of_the_rows(folder, texts, tmp_path, num_threads):
    manifest = score(folder / "model", [texts], tmp_path / "out", keep=["id"], num_threads=num_threads, **SIZES)
    table = text_table()
    expected = predicted(folder / "model", table["text"].to_pylist())
    assert results(tmp_path / "out") == [{"id": row, **found} for row, found in enumerate(expected)]
    assert [part.rows for part in manifest.parts] == [20] * 5
    assert (manifest.rows, manifest.null_rows, manifest.finished) == (100, 0, True)
    # Readers of folders see the results and nothing else.
    assert ds.dataset(tmp_path / "out").to_table()["id"].to_pylist() == list(range(100))


def test_formats_give_the_same_results(folder, tmp_path):
    table = text_table()
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    pa.csv.write_csv(table, tmp_path / "a.csv")
    expected = predicted(folder / "model", table["text"].to_pylist())
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        run(folder / "model", tmp_path / name, "--out", tmp_path / "out" / name)
        assert results(tmp_path / "out" / name) == expected


def test_arrays_need_no_options(folder, tmp_path):
    embeddings = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)
    np.save(tmp_path / "e.npy", embeddings)
    result = run(folder / "plain", tmp_path / "e.npy", "--out", tmp_path / "out", "--k", 3, "--beam-size", 2)
    assert result.stderr == f"{tmp_path / 'out'}: 50 rows, in 1 part\n"
    assert results(tmp_path / "out") == searched(folder / "plain", embeddings, k=3, beam_size=2)


def test_no_rows_give_a_part_that_says_the_columns(folder, tmp_path):
    pq.write_table(text_table()[:0].cast(text_table().schema), tmp_path / "in.parquet")
    score(folder / "model", [tmp_path / "in.parquet"], tmp_path / "out", keep=["id"])
    schema = pq.read_table(tmp_path / "out" / "part-00000.parquet").schema
    assert schema == Scorer(folder / "model", keep=["id"]).schema(text_table().schema)
    assert results(tmp_path / "out") == []


def test_a_bad_row_is_named_and_what_was_finished_stays(folder, tmp_path):
    table = text_table().set_column(1, "text", pa.array([*text_table()["text"].to_pylist()[:63], *[None] * 37]))
    pq.write_table(table[:50], tmp_path / "a.parquet")
    pq.write_table(table[50:], tmp_path / "b.parquet")
    arguments = [
        folder / "model",
        tmp_path / "*.parquet",
        "--out",
        tmp_path / "out",
        "--batch-rows",
        8,
        "--part-rows",
        20,
    ]
    result = run(*arguments, expect=1)
    assert f"{tmp_path}/b.parquet, row 13: 'text' is null" in result.stderr
    done = contents(tmp_path / "out")
    assert sorted(done) == ["_manifest.json", *(f"part-0000{part}.parquet" for part in range(3))]
    # Rows that were good stay as they are when bad ones are allowed.
    result = run(*arguments, "--on-error", "null")
    assert "100 rows, 37 of them null, as they could not be scored, in 5 parts" in result.stderr
    assert all(contents(tmp_path / "out")[name] == done[name] for name in done if name.startswith("part"))
    assert [row["labels"] is None for row in results(tmp_path / "out")] == [False] * 63 + [True] * 37


class Killed(BaseException):
    """Ends a job at once."""


def test_an_interrupted_job_goes_on_after_its_last_part(folder, texts, tmp_path, monkeypatch):
    score(folder / "model", [texts], tmp_path / "undisturbed", **SIZES)
    scored = []
    monkeypatch.setattr(Scorer, "__call__", counted(Scorer.__call__, scored))
    monkeypatch.setattr(parts_module, "sha256", failing_at(parts_module.sha256, call=3))
    with pytest.raises(Killed):
        score(folder / "model", [texts], tmp_path / "out", **SIZES)
    assert len(contents(tmp_path / "out")) == 3
    scored.clear()
    score(folder / "model", [texts], tmp_path / "out", num_threads=1, **SIZES)
    assert sum(scored) == 60
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "undisturbed").keys()
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    # A finished job has nothing left to do.
    scored.clear()
    score(folder / "model", [texts], tmp_path / "out", **SIZES)
    assert not scored


def counted(function, rows):
    def call(self, table):
        rows.append(len(table))
        return function(self, table)

    return call


def failing_at(function, call):
    """The function, which fails the given time that it is called, and works again after that."""
    calls = itertools.count(1)

    def failing(*arguments):
        if next(calls) == call:
            raise Killed
        return function(*arguments)

    return failing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 3}, "k = 10, now it is 3"),
        ({"min_score": 0.5}, "min_score = None, now it is 0.5"),
        ({"keep": ["id"]}, r"keep = \[\], now it is \['id'\]"),
        ({"part_rows": 10}, "part_rows = 20, now it is 10"),
        ({"model": "index"}, "another model"),
    ],
)
def test_other_options_are_refused_by_name(folder, tmp_path, changes, message):
    table = text_table().append_column("e", embedding_array(np.zeros((100, DIM), np.float32)))
    pq.write_table(table, tmp_path / "in.parquet")
    column = {"embedding_column": "e"} if "model" in changes else {}
    given = {**SIZES, **column, "model": "model", **changes}
    if "model" in changes:
        shutil.copytree(folder / "plain", tmp_path / "plain")
        score(tmp_path / "plain", [tmp_path / "in.parquet"], tmp_path / "out", **SIZES, **column)
    else:
        score(folder / "model", [tmp_path / "in.parquet"], tmp_path / "out", **SIZES)
    before = contents(tmp_path / "out")
    model = folder / given.pop("model")
    with pytest.raises(ConfigError, match=message):
        score(model, [tmp_path / "in.parquet"], tmp_path / "out", **given)
    assert contents(tmp_path / "out") == before
    score(model, [tmp_path / "in.parquet"], tmp_path / "out", overwrite=True, **given)
    assert len(results(tmp_path / "out")) == 100


def test_other_inputs_are_refused_by_name(folder, texts, tmp_path):
    score(folder / "model", [texts], tmp_path / "out", **SIZES)
    shutil.copy(texts / "a.parquet", texts / "c.parquet")
    with pytest.raises(ConfigError, match=r"the input .*/c.parquet is new"):
        score(folder / "model", [texts], tmp_path / "out", **SIZES)
    with pytest.raises(ConfigError, match=r"the input .*/b.parquet is gone"):
        score(folder / "model", [texts / "a.parquet"], tmp_path / "out", **SIZES)
    with pytest.raises(ConfigError, match=r"results of the input .*/a.parquet, now it is .*/b.parquet"):
        score(folder / "model", [texts / "b.parquet"], tmp_path / "out", **SIZES)
    (texts / "c.parquet").unlink()
    pq.write_table(text_table()[:30], texts / "b.parquet")
    with pytest.raises(ConfigError, match=r"the input .*/b.parquet has changed"):
        score(folder / "model", [texts], tmp_path / "out", **SIZES)


def test_starting_over_leaves_nothing_of_the_old_job(folder, texts, tmp_path):
    score(folder / "model", [texts], tmp_path / "out", **SIZES)
    score(folder / "model", [texts], tmp_path / "out", batch_rows=8, part_rows=60, overwrite=True)
    assert len(results(tmp_path / "out")) == 100


def test_damaged_results_are_refused(folder, texts, tmp_path):
    score(folder / "model", [texts], tmp_path / "out", **SIZES)
    (tmp_path / "out" / "part-00002.parquet").write_bytes(b"")
    with pytest.raises(FormatError, match=r"part-00002.parquet is gone or has changed"):
        score(folder / "model", [texts], tmp_path / "out", **SIZES)
    for content in ("{", "[]", '{"format": "elias_idx_scores", "format_version": 2}'):
        (tmp_path / "out" / "_manifest.json").write_text(content)
        with pytest.raises(FormatError, match=r"_manifest.json"):
            score(folder / "model", [texts], tmp_path / "out", **SIZES)
    score(folder / "model", [texts], tmp_path / "out", overwrite=True, **SIZES)
    assert len(results(tmp_path / "out")) == 100


def test_other_peoples_folders_are_left_alone(folder, texts, tmp_path):
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="no folder of scores"):
            score(folder / "model", [texts / "a.parquet"], tmp_path / "in" / "..", overwrite=overwrite)
    with pytest.raises(ConfigError, match="lies in the input"):
        score(folder / "model", [texts], texts / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_two_jobs_do_not_write_to_one_folder(folder, texts, tmp_path, monkeypatch):
    def second_job(*_):
        score(folder / "model", [texts], tmp_path / "out")

    monkeypatch.setattr(parts_module, "sha256", second_job)
    with pytest.raises(FileExistsError, match="another job is writing"):
        score(folder / "model", [texts], tmp_path / "out")


def test_without_a_terminal_progress_is_lines(folder, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("elias_idx.score.progress._SECONDS", 0.0)
    result = run(folder / "model", texts, "--out", tmp_path / "out", "--batch-rows", 8, "--part-rows", 20)
    lines = result.stderr.splitlines()
    assert re.fullmatch(r"8 rows, [\d,]+ rows/s", lines[0])
    assert re.fullmatch(r"68 rows, [\d,]+ rows/s, \d\d:\d\d left", lines[9])
    assert lines[-1] == f"{tmp_path / 'out'}: 100 rows, in 5 parts"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "in", "--text-column", "body"], "there is no column 'body'; there are id, text"),
        (["model", "in", "--text-column", "id"], "column 'id' must hold strings, it holds int64"),
        (["model", "in", "--keep", "lang"], "there is no column 'lang'"),
        (["index", "in"], "there is no column 'embedding'"),
        (["model", "none.parquet"], "there is no file or folder none.parquet"),
        (["model", "in", "--keep", "scores"], "rename the input's"),
    ],
)
@pytest.mark.usefixtures("texts")
def test_what_cant_work_is_explained_and_leaves_nothing(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(folder / arguments[0], *arguments[1:], "--out", tmp_path / "out", expect=1)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


# Forks a process for every attempt, which spares the imports, and kills it from outside. Jobs that are done before all
# kills are, if the machine is suddenly faster, are followed by others.
KILL_SCRIPT = """
import os, random, signal, sys, time
from elias_idx.score import score

model, inputs, out, kills = sys.argv[1:]
options = {"keep": ["id"], "embedding_column": "e", "batch_rows": 64, "part_rows": 500, "num_threads": 2}
start = time.monotonic()
score(model, [inputs], out + "/undisturbed", **options)
whole = time.monotonic() - start
rng = random.Random(int(kills))
done = jobs = 0
finished = False
while done < int(kills) or not finished:
    child = os.fork()
    if not child:
        score(model, [inputs], f"{out}/killed-{jobs}", **options)
        os._exit(0)
    if done < int(kills):
        time.sleep(rng.uniform(0, 1.5 * whole / int(kills)))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    finished = not status
    assert finished or os.WTERMSIG(status) == signal.SIGKILL
    done += not finished
    jobs += finished
print(done, jobs)
"""


def check_kills(folder, tmp_path, kills, rows):
    """Kills a job at random moments, and compares what it comes to in the end."""
    embeddings = np.random.default_rng(0).standard_normal((rows, DIM)).astype(np.float32)
    pq.write_table(pa.table({"id": range(rows), "e": embedding_array(embeddings)}), tmp_path / "in.parquet")
    arguments = [folder / "index", tmp_path / "in.parquet", tmp_path, kills]
    command = [sys.executable, "-c", KILL_SCRIPT, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    done, jobs = map(int, found.stdout.split())
    assert done == kills
    expected = [{"id": row, **found} for row, found in enumerate(searched(folder / "index", embeddings))]
    assert results(tmp_path / "undisturbed") == expected
    for job in range(jobs):
        assert contents(tmp_path / f"killed-{job}") == contents(tmp_path / "undisturbed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_killed_job_loses_and_doubles_nothing(folder, tmp_path):
    check_kills(folder, tmp_path, kills=5, rows=6_000)


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_job_killed_again_and_again_loses_and_doubles_nothing(folder, tmp_path):
    check_kills(folder, tmp_path, kills=25, rows=30_000)
