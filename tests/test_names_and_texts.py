"""Names and texts of any content, from training to every output: nothing is lost, split, run or taken for a path."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from elias_idx import Ensemble, Index, Model
from elias_idx._wording import printable
from elias_idx.arrow import Scorer
from elias_idx.cli.commands import cli
from elias_idx.data import read_rows, read_training_set, write_rows
from elias_idx.train import train_model
from helpers_index import build
from helpers_training import TINY, topic_texts
from oracle import random_parts

NAMES = [
    "", " ", " leading", "trailing ", "two\nlines", "carriage\rreturn", "tab\tbed", "com,ma", 'quo"te', "apo'strophe",
    "a\0b", "back\\slash", "../../x", "/etc/passwd", "C:\\x", "..", ".", "CON", "-rf", "--out", "{label}", "%s",
    "$HOME", "<b>&amp;", "\x1b[2Jcleared", "\x1b]0;title\x07", "\x9b31m", "\x7f", "next\x85line",
    "line\u2028of\u2029it", "\ufeffbom", "\u202ereversed", "ש\u05c1לום", "مرحبا", "e\u0301", "é",
    "👨‍👩‍👧", "\U0010ffff",
    "\ufffe", "x" * 2**20,
]  # fmt: skip
TEXTS = [*NAMES[:-1], "word " * 200_000, "x" * 2**20, "\0" * 100, "\u0301" * 1000, "𝕏" * 5000]
ROWS, _ = topic_texts(num_topics=len(NAMES), per_topic=6)
LABELS = [[NAMES[row // 6], f"group{row // 60}"] for row in range(len(ROWS))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training data, whose names are odd, and a model that was trained on these by the command line."""
    folder = tmp_path_factory.mktemp("names") / "inner"
    folder.mkdir()
    write_rows(folder / "train.jsonl", ({"text": t, "labels": row} for t, row in zip(ROWS, LABELS, strict=True)))
    train_model(read_training_set(folder / "train.jsonl"), folder / "model", TINY)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    model = Model.load(folder / "model")
    assert isinstance(model, Model)
    return model


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_training_keeps_every_name_and_writes_nowhere_else(folder: Path, model: Model) -> None:
    assert set(model.index.label_names or []) == {name for row in LABELS for name in row}
    assert sorted(path.name for path in folder.iterdir()) == ["model", "train.jsonl"]
    assert [path.name for path in folder.parent.iterdir()] == ["inner"]


def test_predictions_have_the_names_as_they_were(model: Model) -> None:
    found = model.predict(ROWS, 3).names
    right = [row[0] in names for row, names in zip(LABELS, found, strict=True)]
    assert np.mean(right) > 0.9
    assert {name for names in found for name in names} >= set(NAMES)


def test_saved_models_and_ensembles_keep_the_names(model: Model, tmp_path: Path) -> None:
    expected = model.predict(ROWS[::6], 3)
    model.save(tmp_path / "copy")
    Ensemble([model, model]).save(tmp_path / "ensemble")
    assert Model.load(tmp_path / "copy").predict(ROWS[::6], 3) == expected
    together = Model.load(tmp_path / "ensemble").predict(ROWS[::6], 3)
    assert [set(names) for names in together.names] == [set(names) for names in expected.names]
    assert list(Index.load(tmp_path / "copy" / "index").label_names or []) == list(model.index.label_names or [])


def test_labels_are_named_in_filters_and_left_out(model: Model) -> None:
    for name in NAMES:
        assert {*model.predict(ROWS[:2], 3, filter=[name]).names[0]} <= {name}
    rest = model.remove_labels(NAMES[1:])
    assert set(rest.index.label_names or []) == {NAMES[0], *(row[1] for row in LABELS)}


def test_predictions_as_json_lines(folder: Path, model: Model, tmp_path: Path) -> None:
    expected = model.predict(ROWS, 3)
    run("predict", folder / "model", folder / "train.jsonl", "--k", 3, "--out", tmp_path / "found.jsonl")
    raw = (tmp_path / "found.jsonl").read_bytes()
    # Whoever splits lines, by whichever rules, finds one object in each.
    for lines in (raw.split(b"\n")[:-1], raw.decode().splitlines()):
        assert [json.loads(line)["labels"] for line in lines] == expected.names
    assert [row.labels for row in read_rows(tmp_path / "found.jsonl", fields=["labels"])] == expected.names


def test_predictions_on_a_terminal_hold_no_control_characters(folder: Path, model: Model) -> None:
    shown = run("predict", folder / "model", folder / "train.jsonl", "--k", 3, "--out", "-")
    assert [json.loads(line)["labels"] for line in shown.split("\n")[:-1]] == model.predict(ROWS, 3).names
    assert printable(shown) == shown


def test_scoring_jobs_keep_names_texts_and_columns(folder: Path, model: Model, tmp_path: Path) -> None:
    table = pa.table({"text": ROWS, "kept": [row[0] for row in LABELS]})
    pq.write_table(table, tmp_path / "rows.parquet")
    write_rows(tmp_path / "rows.jsonl", table.to_pylist())
    expected = model.predict(ROWS, 3)
    for source in ("rows.parquet", "rows.jsonl"):
        out = tmp_path / f"of {source}"
        run("score", folder / "model", tmp_path / source, "--out", out, "--k", 3, "--keep", "kept")
        found = pq.read_table(out / "part-00000.parquet").to_pydict()
        assert found["kept"] == [row[0] for row in LABELS]
        assert found["labels"] == expected.names


def test_errors_and_descriptions_obey_no_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed.txt").write_text("\x1b[2J\x9b1m\n")
    arguments = ["predict", folder / "model", folder / "train.jsonl", "--out", "-", "--allow", tmp_path / "allowed.txt"]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "\x9b" not in result.output
    Model.load(folder / "model").save(tmp_path / "model")
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    content["settings"]["\x1b]0;owned\x07"] = "\x1b[2J"
    (tmp_path / "model" / "model.json").write_text(json.dumps(content))
    assert r"\x1b]0;owned\x07 = \x1b[2J" in run("info", tmp_path / "model")


def test_what_is_printable_stays_as_it_is() -> None:
    plain = "tab\t, line\n, é e\u0301 ש 👨‍👩‍👧 中"
    assert printable(plain) == plain
    assert printable("\x1b\r\x9b\u202e\ud800") == r"\x1b\r\x9b\u202e\ud800"


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
def test_texts_of_any_content_are_predicted_alike_alone_and_together(model: Model, text: str) -> None:
    found = model.predict([ROWS[0], text, ROWS[1]], 5)
    assert np.isfinite(found.scores[1]).all()
    assert found.names[1] == model.predict([text], 5).names[0]
    assert found.names[::2] == model.predict(ROWS[:2], 5).names
    assert Scorer(model, k=5)(pa.table({"text": [text]}))["labels"].to_pylist() == [found.names[1]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=40), max_size=4))
def test_all_texts_are_predicted_and_lone_surrogates_are_no_letters(model: Model, texts: list[str]) -> None:
    found = model.predict(texts, 5)
    assert len(found.names) == len(texts)
    assert all(0 <= value <= 1 for row in found.scores for value in row)
    assert found == model.predict([text.encode(errors="replace").decode() for text in texts], 5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(names=st.lists(st.text(max_size=30), min_size=4, max_size=4, unique=True))
def test_indexes_keep_names_of_any_content(names: list[str]) -> None:
    index = build(random_parts(num_labels=4, num_clusters=2), label_names=names)
    assert list(index.label_names or []) == names
    assert index.names(np.arange(4)).tolist() == names
    assert index.label_filter(names[2:3]) is not None
    assert list(index.in_memory().label_names or []) == names
