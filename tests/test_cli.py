"""The command line, as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import CliRunner

import elias_idx
from elias_idx import Index, Model
from elias_idx.cli import interruption, main
from elias_idx.cli.commands import cli
from elias_idx.cli.predict import _label_filter
from elias_idx.data import read_rows, read_training_set, write_rows
from elias_idx.train import memory
from helpers_index import build
from helpers_training import TINY, topic_features, topic_texts
from oracle import random_parts


def run(*arguments, expect=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result


def write_set(path, seed=0):
    texts, labels = topic_texts(seed=seed)
    write_rows(path, ({"text": text, "labels": row} for text, row in zip(texts, labels, strict=True)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a training and a test set, settings and a trained model."""
    folder = tmp_path_factory.mktemp("cli")
    write_set(folder / "train.jsonl")
    write_set(folder / "test.jsonl", seed=1)
    settings = {name: value for name, value in asdict(TINY).items() if isinstance(value, (int, float, str))}
    (folder / "tiny.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    run(
        "train", folder / "train.jsonl", "--dev", folder / "test.jsonl", "--out", folder / "model",
        "--config", folder / "tiny.toml", "--seed", 3,
    )  # fmt: skip
    return folder


def test_options_take_precedence_over_the_file(folder):
    settings = Model.load(folder / "model").settings
    assert settings["seed"] == 3
    assert settings["dim"] == TINY.dim


def test_training_reports_every_epoch_with_the_dev_set(folder, tmp_path):
    result = run(
        "train", folder / "train.jsonl", "--dev", folder / "test.jsonl", "--out", tmp_path / "model",
        "--config", folder / "tiny.toml",
    )  # fmt: skip
    lines = [line for line in result.stderr.splitlines() if line.startswith("stage")]
    assert [line.split(":")[0] for line in lines] == [
        "stage 1, epoch 1 of 3", "stage 1, epoch 2 of 3", "stage 1, epoch 3 of 3",
        "stage 2, epoch 1 of 2", "stage 2, epoch 2 of 2",
    ]  # fmt: skip
    assert all("dev mean" in line for line in lines)
    kept = [line.rpartition(",")[0] for line in result.stderr.splitlines() if line.startswith("kept")]
    assert kept == ["kept: stage 1", "kept: stage 2"]


def test_the_full_preset_holds_texts_out_by_group(folder, tmp_path):
    texts, labels = topic_texts()
    rows = (
        {"text": text, "labels": row, "of": at // 3} for at, (text, row) in enumerate(zip(texts, labels, strict=True))
    )
    write_rows(tmp_path / "train.jsonl", rows)
    arguments = ["train", tmp_path / "train.jsonl", "--config", folder / "tiny.toml", "--preset", "full"]
    result = run(*arguments, "--group-field", "of", "--out", tmp_path / "model")
    lines = result.stderr.splitlines()
    assert "of them held out" in lines[0]
    assert sum("held-out mean" in line for line in lines) == 5
    assert "fusion      of dense model" in run("info", tmp_path / "model").output
    both = [run("evaluate", tmp_path / "model", folder / "test.jsonl", *more).output for more in ([], ["--no-fusion"])]
    assert both[0] != both[1]
    loaded = Model.load(tmp_path / "model")
    assert loaded.index.has_fusion
    run(*arguments, "--group-field", "of", "--dev", folder / "test.jsonl", "--out", tmp_path / "other", expect=2)
    found = run(*arguments, "--group-field", "from", "--out", tmp_path / "other", expect=1)
    assert "no 'from' to group by" in found.output


def test_a_dry_run_prints_the_memory_by_part(folder, tmp_path):
    arguments = ["train", folder / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml"]
    output = run(*arguments, "--dry-run").stdout
    assert output.startswith("480 texts, 45 labels")
    assert "takes less than a minute, about" in output
    assert "training: 3 + 2 epochs, batches of 32" in output
    for part in ("label classifiers ", "n-grams ", "in all during stage 2", "at most", "available"):
        assert part in output
    assert list(tmp_path.iterdir()) == []
    assert "num_clusters is 99" in run(*arguments, "--dry-run", "--num-clusters", 99, expect=1).output


def test_what_is_wrong_shows_before_data_are_read(folder, tmp_path):
    (tmp_path / "broken.jsonl").write_text("no JSON")
    for arguments, message in (
        (["--out", folder / "model"], "--overwrite"),
        (["--out", tmp_path / "none" / "model"], "create it first"),
        (["--out", tmp_path / "model", "--preset", "slow"], "preset must be one of fast, full"),
        (["--out", tmp_path / "model", "--dim", 0], "dim must be at least 1"),
        (["--out", tmp_path / "model", "--dev-metric", "accuracy"], "dev_metric must be mean"),
    ):
        assert message in run("train", tmp_path / "broken.jsonl", *arguments, expect=1).output


def test_training_ends_with_what_comes_next(folder, tmp_path):
    result = run("train", folder / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml")
    assert f"next: elias-idx evaluate {tmp_path / 'model'} TEST_DATA" in result.stderr


def test_too_little_memory_is_explained(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    arguments = ["train", folder / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml"]
    output = run(*arguments, "--dim", 512, expect=1).output
    assert "are available" in output
    assert "--ignore-memory" in output
    run(*arguments, "--dim", 512, "--stage1-epochs", 1, "--stage2-epochs", 0, "--ignore-memory")


def test_predictions_come_in_order_and_ignore_other_fields(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    texts = [row.text for row in read_rows(folder / "test.jsonl")][:7]
    write_rows(tmp_path / "in.jsonl", ({"id": number, "text": text} for number, text in enumerate(texts)))
    run("predict", folder / "model", tmp_path / "in.jsonl", "--out", out, "--k", 3)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = Model.load(folder / "model").predict(texts, 3)
    assert [row["labels"] for row in rows] == expected.names
    assert [row["scores"] for row in rows] == expected.scores
    assert all(set(row) == {"labels", "scores"} for row in rows)


def test_predictions_can_go_to_standard_output_and_no_further_than_asked(folder, tmp_path):
    predict = ["predict", folder / "model", folder / "test.jsonl", "--out"]
    result = run(*predict, "-", "--k", 1)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == len(topic_texts()[0])
    os.mkfifo(tmp_path / "pipe")
    result = run(
        "predict", folder / "model", folder / "test.jsonl", "--out", tmp_path / "pipe", "--overwrite", expect=1
    )
    assert "no regular file" in result.output
    result = run(*predict, tmp_path / "none" / "o.jsonl", expect=1)
    assert "create it first" in result.output
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    run(*predict, tmp_path / "link.jsonl", "--overwrite")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "real.jsonl").read_text().splitlines()) == len(rows)


def test_predictions_of_some_labels_above_a_score(folder, tmp_path):
    model, texts = Model.load(folder / "model"), [row.text for row in read_rows(folder / "test.jsonl")]
    (tmp_path / "names.txt").write_text("t1\n\nt2\r\n", encoding="utf-8")
    predict = ["predict", folder / "model", folder / "test.jsonl", "--out", "-", "--k", 5]
    result = run(*predict, "--allow", tmp_path / "names.txt", "--min-score", 0.01)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    expected = model.predict(texts, 5, filter=["t1", "t2"], min_score=0.01)
    assert [row["labels"] for row in rows] == expected.names
    assert {name for row in rows for name in row["labels"]} == {"t1", "t2"}
    assert len({len(row["labels"]) for row in rows}) > 1
    assert all(score >= 0.01 for row in rows for score in row["scores"])

    # Names may hold what else passes for an end of a line.
    names = [f"a{character}b" for character in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    parts = random_parts(num_labels=len(names), labels_per_cluster=4)
    assert len(_label_filter(build(parts, label_names=names), tmp_path / "names.txt")) == len(names)

    (tmp_path / "names.txt").write_text("t1\nnothing\n", encoding="utf-8")
    result = run(*predict, "--allow", tmp_path / "names.txt", expect=1)
    assert 'names.txt: no label is called "nothing"' in result.output
    assert "must be a number" in run(*predict, "--min-score", "nan", expect=2).output


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no new files, not even from root")
def test_unwritable_places_are_explained(folder):
    result = run("predict", folder / "model", folder / "test.jsonl", "--out", "/proc/out.jsonl", expect=1)
    assert result.stderr.startswith("Error: ")
    result = run("train", folder / "train.jsonl", "--config", folder / "tiny.toml", "--out", "/proc/model", expect=1)
    assert "Error: " in result.stderr


def test_evaluation_takes_the_search_s_sizes(folder):
    narrow, wide = (
        json.loads(run("evaluate", folder / "model", folder / "test.jsonl", "--json", *sizes).stdout)["metrics"][
            "R@100"
        ]
        for sizes in (["--beam-size", 1, "--shortlist-size", 3], ["--beam-size", 8, "--shortlist-size", 45])
    )
    assert narrow < wide
    for propensity in (["-5", "1"], ["nan", "1"]):
        result = CliRunner().invoke(
            cli, ["evaluate", str(folder / "model"), str(folder / "test.jsonl"), "--propensity", *propensity]
        )
        assert result.exit_code != 0
        assert isinstance(result.exception, SystemExit)


def test_evaluation_as_json_matches_the_library(folder):
    result = run("evaluate", folder / "model", folder / "test.jsonl", "--json")
    rows = list(read_rows(folder / "test.jsonl"))
    expected = Model.load(folder / "model").evaluate([row.text for row in rows], [row.labels for row in rows])
    assert json.loads(result.stdout)["metrics"] == pytest.approx(expected.metrics)
    assert {"P@1", "nDCG@3", "R@100", "PSP@5", "PSnDCG@5"} <= expected.metrics.keys()


def test_evaluation_prints_groups_and_takes_cutoffs(folder):
    result = run("evaluate", folder / "model", folder / "test.jsonl", "--k", "1,2", "--recall-k", "7")
    names = [line.split()[0] for line in result.stdout.splitlines() if line]
    assert {"P@1", "PSnDCG@2", "R@7", "head", "torso", "tail"} <= set(names)
    assert "P@3" not in names
    for bad in ("1,x", "0", "", "1,-2"):
        assert (
            "positive whole numbers"
            in run("evaluate", folder / "model", folder / "test.jsonl", "--k", bad, expect=2).output
        )


def test_evaluation_leaves_out_the_pairs_of_a_filter_file(folder, tmp_path):
    train, test = write_bag_of_words(tmp_path / "train.txt"), write_bag_of_words(tmp_path / "test.txt", seed=1)
    run("train", train, "--out", tmp_path / "model", "--config", folder / "tiny.toml")
    data = read_training_set(test)
    # All labels of the second half of the texts, which count as zeros.
    half = len(data) // 2
    rows, labels = data.labels[half:].nonzero()
    np.savetxt(tmp_path / "filter.txt", np.stack([rows + half, labels], 1), fmt="%d")
    evaluate = ["evaluate", tmp_path / "model", test, "--json", "--filter"]
    found = json.loads(run(*evaluate, tmp_path / "filter.txt").stdout)
    expected = Model.load(tmp_path / "model").evaluate(
        data.inputs[:half], data.labels[:half], label_names=data.label_names
    )
    for name, value in found["metrics"].items():
        share = half / len(data) if name.split("@")[0] in ("P", "nDCG", "R") else 1
        assert value == pytest.approx(expected.metrics[name] * share), name
    assert found["num_without_labels"] == len(data) - half
    output = run(*evaluate[:-2], "--filter", tmp_path / "filter.txt").output
    assert f"{len(data) - half} of them without labels and counted as zeros" in output
    np.savetxt(tmp_path / "filter.txt", np.stack(data.labels.nonzero(), 1), fmt="%d")
    assert "no text has a label that isn't excluded" in run(*evaluate, tmp_path / "filter.txt", expect=1).output
    (tmp_path / "filter.txt").write_text("")
    assert json.loads(run(*evaluate, tmp_path / "filter.txt").stdout)["num_without_labels"] == 0
    evaluate = ["evaluate", folder / "model", folder / "test.jsonl", "--filter", tmp_path / "filter.txt"]
    assert "labels by number" in run(*evaluate, expect=1).output


def test_evaluation_takes_cutoffs_beyond_all_labels(folder):
    output = run(
        "evaluate", folder / "model", folder / "test.jsonl", "--k", "45,1000000000", "--recall-k", 10**20
    ).output
    assert f"R@{10**20}" in output


def test_evaluation_checks_the_model_before_it_reads_the_data(folder, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{")
    np.save(tmp_path / "rows.npy", np.ones((2, 16), np.float32))
    embeddings = ["--embeddings", tmp_path / "rows.npy"]
    assert "takes texts" in run("evaluate", folder / "model", tmp_path / "bad.jsonl", *embeddings, expect=1).output
    assert "is no model" in run("evaluate", tmp_path, tmp_path / "bad.jsonl", expect=1).output


def test_evaluation_reports_labels_never_seen(folder, tmp_path):
    write_rows(tmp_path / "odd.jsonl", [{"text": "topic1x", "labels": ["t1", "new"]}, {"text": "x", "labels": []}])
    result = run("evaluate", folder / "model", tmp_path / "odd.jsonl")
    assert "never seen in training, which can't be predicted: 1" in result.stdout
    assert "2 texts, 1 of them without labels" in result.stdout


def test_info_describes_models_and_indexes(folder):
    result = run("info", folder / "model")
    assert "labels      45" in result.stdout
    assert "bag, 16 dimensions" in result.stdout
    assert "labels      45" in run("info", folder / "model" / "index").stdout


def test_models_and_indexes_are_quantized(folder, tmp_path):
    model, texts = Model.load(folder / "model"), [row.text for row in read_rows(folder / "test.jsonl")][:20]
    run("quantize", folder / "model", "--dtype", "bfloat16", "--out", tmp_path / "model")
    quantized = Model.load(tmp_path / "model")
    quantized.verify()
    assert (quantized.index.dtype, quantized.index.screen) == ("bfloat16", True)
    found, expected = quantized.predict(texts, 1), model.predict(texts, 1)
    assert sum(one == other for one, other in zip(found.names, expected.names, strict=True)) >= 18
    result = run("quantize", tmp_path / "model", "--dtype", "int8", "--out", tmp_path / "model", expect=1)
    assert "exists" in result.output
    run("quantize", tmp_path / "model", "--dtype", "int8", "--no-screen", "--out", tmp_path / "model", "--overwrite")
    assert "int8, without 8-bit codes" in run("info", tmp_path / "model").stdout
    run("quantize", folder / "model" / "index", "--dtype", "int8", "--out", tmp_path / "index")
    index = Index.load(tmp_path / "index")
    index.verify()
    assert (index.dtype, index.screen) == ("int8", True)
    result = run("quantize", tmp_path / "index", "--dtype", "float32", "--out", tmp_path / "wide", expect=1)
    assert "an int8 index can't become float32" in result.output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "model"]


def test_existing_outputs_are_refused_unless_asked(folder, tmp_path):
    result = run("train", folder / "train.jsonl", "--out", folder / "model", expect=1)
    assert "exists: choose another path" in result.output
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    result = run("predict", folder / "model", folder / "test.jsonl", "--out", out, expect=1)
    assert "give --overwrite" in result.output
    assert out.read_text() == "mine"
    run("predict", folder / "model", folder / "test.jsonl", "--out", out, "--overwrite")
    assert len(out.read_text().splitlines()) == len(topic_texts()[0])


def test_embeddings_take_the_place_of_texts(folder, tmp_path):
    embeddings = Model.load(folder / "model").encode([row.text for row in read_rows(folder / "train.jsonl")])
    np.save(tmp_path / "train.npy", embeddings)
    run(
        "train", folder / "train.jsonl", "--embeddings", tmp_path / "train.npy", "--out", tmp_path / "model",
        "--config", folder / "tiny.toml", "--encoder", "precomputed",
    )  # fmt: skip
    run("predict", tmp_path / "model", tmp_path / "train.npy", "--out", tmp_path / "out.jsonl", "--k", 2)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(embeddings)
    result = run(
        "evaluate",
        tmp_path / "model",
        folder / "train.jsonl",
        "--embeddings",
        tmp_path / "train.npy",
        "--json",
    )
    assert json.loads(result.stdout)["metrics"]["P@1"] > 80
    result = run("predict", tmp_path / "model", folder / "test.jsonl", "--out", tmp_path / "no.jsonl", expect=1)
    assert "takes an array of embeddings" in result.output
    np.save(tmp_path / "short.npy", embeddings[:5])
    result = run(
        "evaluate",
        tmp_path / "model",
        folder / "train.jsonl",
        "--embeddings",
        tmp_path / "short.npy",
        expect=1,
    )
    assert "has 5 rows" in result.output


def test_relevances_are_what_scores_aim_at(folder, tmp_path):
    texts, labels = topic_texts()
    rows = [
        {"text": text, "labels": row, "relevance": [0.1 if name.startswith("group") else 1 for name in row]}
        for text, row in zip(texts, labels, strict=True)
    ]
    write_rows(tmp_path / "train.jsonl", rows)
    run("train", tmp_path / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml", "--seed", 3)
    scores = {}
    for name, model in {"full": folder / "model", "less": tmp_path / "model"}.items():
        found = Model.load(model).predict(texts, 5)
        pairs = [pair for names, scores in zip(*found, strict=True) for pair in zip(names, scores, strict=True)]
        scores[name] = [np.mean([score for label, score in pairs if label.startswith(kind)]) for kind in ("group", "t")]
    # Groups' scores fall far, relative to those of topics.
    assert scores["less"][0] / scores["less"][1] < 0.5 * scores["full"][0] / scores["full"][1]


def write_bag_of_words(path, seed=0):
    features, labels = topic_features(seed)
    numbers = {name: number for number, name in enumerate(sorted({name for row in labels for name in row}))}
    with path.open("w") as file:
        file.write(f"{features.shape[0]} {features.shape[1]} {len(numbers)}\n")
        for row, names in enumerate(labels):
            start, end = features.indptr[row : row + 2]
            pairs = zip(features.indices[start:end], features.data[start:end], strict=True)
            file.write(f"{','.join(str(numbers[name]) for name in names)} {' '.join(f'{f}:{v}' for f, v in pairs)}\n")
    return path


def test_bag_of_words_files_train_predict_and_evaluate(folder, tmp_path):
    train, test = write_bag_of_words(tmp_path / "train.txt"), write_bag_of_words(tmp_path / "test.txt", seed=1)
    run("train", train, "--dev", test, "--out", tmp_path / "model", "--config", folder / "tiny.toml")
    run("predict", tmp_path / "model", test, "--out", tmp_path / "out.jsonl", "--k", 2)
    data = read_training_set(test)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in rows] == Model.load(tmp_path / "model").predict(data.inputs, 2).names
    result = run("evaluate", tmp_path / "model", test, "--json")
    assert json.loads(result.stdout)["metrics"]["P@1"] > 90
    assert "takes sparse features" in run("evaluate", tmp_path / "model", folder / "test.jsonl", expect=1).output
    assert "takes texts" in run("evaluate", folder / "model", test, expect=1).output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.jsonl: the data set is empty: there is no row with a label"),
        ('{"text": "a", "labels": ["x"]}\n{"text": "b"}\n', "bad.jsonl:2: the row has no 'labels'"),
        ('{"labels": ["x"]}\n', "bad.jsonl:1: the row has no 'text'"),
    ],
)
def test_bad_training_files_are_explained(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_text(content)
    result = run("train", tmp_path / "bad.jsonl", "--out", tmp_path / "model", expect=1)
    assert message in result.output
    assert "Traceback" not in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dim", "0"], "dim must be at least 1"),
        (["--dim", "big"], "not a valid int"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--num-clusters", "100000"], "only 45 labels"),
    ],
)
def test_bad_options_are_explained(folder, tmp_path, options, message):
    result = CliRunner().invoke(cli, ["train", str(folder / "train.jsonl"), "--out", str(tmp_path / "m"), *options])
    assert result.exit_code != 0
    assert message in result.output


def test_a_model_that_is_none_is_explained(tmp_path, folder):
    result = run("predict", tmp_path, folder / "test.jsonl", "--out", tmp_path / "out.jsonl", expect=1)
    assert "is no model" in result.output
    assert "there is no model" in run("info", tmp_path / "none", expect=1).output


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["evaluate"], ["info"], ["quantize"], ["demo"]])
def test_every_command_explains_itself(command):
    output = run(*command, "--help").output
    assert "Usage:" in output
    if command:
        assert "elias-idx " + command[0] in output


@pytest.mark.parametrize("limit", [3000, 150_000])
def test_a_full_disk_is_explained_and_leaves_nothing_half_written(folder, tmp_path, limit):
    """The first limit stops a prediction file, the second a checkpoint."""
    command = {
        3000: ["predict", folder / "model", folder / "test.jsonl", "--out", tmp_path / "out.jsonl"],
        150_000: [
            *("train", folder / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml"),
            *("--checkpoint-steps", 1000),
        ],
    }[limit]
    script = (
        "import resource, torch\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from elias_idx.cli import main\n"
        "main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "Error: " in found.stderr
    assert "File too large" in found.stderr
    assert "Traceback" not in found.stderr
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    run_files = ["model.training", "model.training/clusters.safetensors", "model.training/run.json"]
    assert left == ([] if limit == 3000 else run_files)


@pytest.fixture
def signals(monkeypatch):
    """Signals have Python's own handlers and none came; afterwards all is as before."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(interruption, "_came", [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def interrupted(signum, becomes=None):
    """What gets a signal, of which something else may make another error."""

    def work(*arguments, **options):  # noqa: ARG001
        try:
            os.kill(os.getpid(), signum)
            time.sleep(60)
        except KeyboardInterrupt:
            if becomes is None:
                raise
            raise becomes from None

    return work


INTERRUPTIONS = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
OTHER_ERRORS = pytest.mark.parametrize(
    "becomes", [None, RuntimeError("Error calling __set_name__"), OSError("no file"), EOFError()]
)


@INTERRUPTIONS
@OTHER_ERRORS
@pytest.mark.usefixtures("signals")
def test_an_interruption_before_a_command_sees_it(monkeypatch, capsys, signum, code, becomes):
    monkeypatch.setattr(cli, "make_context", interrupted(signum, becomes))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == "Stopped."


@INTERRUPTIONS
@OTHER_ERRORS
@pytest.mark.usefixtures("signals")
def test_an_interrupted_job_says_how_to_go_on(monkeypatch, capsys, folder, tmp_path, signum, code, becomes):
    monkeypatch.setattr("elias_idx.score.score", interrupted(signum, becomes))
    arguments = ["elias-idx", "score", folder / "model", folder / "test.jsonl", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == "Stopped. The same command goes on where it stopped."


@pytest.mark.parametrize("error", [EOFError("it ends"), RuntimeError("a defect")])
@pytest.mark.usefixtures("signals")
def test_errors_without_a_signal_are_no_interruptions(monkeypatch, error):
    monkeypatch.setattr(cli, "make_context", Mock(side_effect=error))
    with pytest.raises(type(error), match=str(error)):
        main()


def test_ctrl_c_keeps_the_last_checkpoint_and_resume_goes_on(folder, tmp_path):
    arguments = ["train", folder / "train.jsonl", "--config", folder / "tiny.toml", "--stage1-epochs", 60]
    arguments += ["--checkpoint-steps", 10, "--out"]
    command = [sys.executable, "-c", "from elias_idx.cli import main; main()", *map(str, arguments)]
    process = subprocess.Popen([*command, str(tmp_path / "model")], stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "model.training" / "state.json"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert checkpoint.exists()
    assert not (tmp_path / "model").exists()

    assert "unfinished run" in run(*arguments, tmp_path / "model", expect=1).output
    refused = run(*arguments, tmp_path / "model", "--resume", "--batch-size", 16, expect=1)
    assert "other values of batch_size" in refused.output
    run(*arguments, tmp_path / "model", "--resume")
    assert not (tmp_path / "model.training").exists()
    run(*arguments, tmp_path / "undisturbed")
    one, other = (Index.load(tmp_path / name / "index") for name in ("model", "undisturbed"))
    assert np.array_equal(one.label_weights, other.label_weights)
    assert np.array_equal(one.adjacency.data, other.adjacency.data)
    run(*arguments, tmp_path / "model", "--resume")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dev", "unlabelled.jsonl"], "no row with a label"),
        (["--dev-embeddings", "short.npy"], "give both"),
        (["--dev", "test.jsonl", "--embeddings", "short.npy"], "go together"),
        (["--embeddings", "short.npy"], "go together"),
        (["--device", "banana"], "can't be used"),
        (["--dev-metric", "accuracy"], "dev_metric must be mean, P@k"),
        (["--early-stopping", "2"], "give dev data"),
        (["--encoder", "precomputed"], "--embeddings and --encoder precomputed go together"),
        (["--seed", str(2**64)], "seed must be at most"),
        (["--label-learning-rate", "1e30"], "lower learning rates"),
    ],
)
def test_what_cant_work_is_explained_without_a_traceback(folder, tmp_path, arguments, message):
    write_rows(tmp_path / "unlabelled.jsonl", [{"text": "x", "labels": []}])
    np.save(tmp_path / "short.npy", np.ones((2, 3), np.float32))
    (tmp_path / "test.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    paths = [tmp_path / part if (tmp_path / part).is_file() else part for part in arguments]
    common = ["train", folder / "train.jsonl", "--out", tmp_path / "model", "--config", folder / "tiny.toml"]
    result = CliRunner().invoke(cli, [str(part) for part in (*common, *paths)])
    assert result.exit_code != 0
    assert message in result.output
    assert isinstance(result.exception, SystemExit)


def test_bad_embeddings_are_explained(folder, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((480, 16), np.nan, np.float32))
    result = run("evaluate", folder / "model", folder / "train.jsonl", "--embeddings", tmp_path / "nan.npy", expect=1)
    assert "takes texts" in result.output
    np.savez(tmp_path / "several.npy.npz", np.ones(3))
    (tmp_path / "several.npy.npz").rename(tmp_path / "several.npy")
    train = ["train", folder / "train.jsonl", "--out", tmp_path / "model", "--encoder", "precomputed", "--embeddings"]
    result = run(*train, tmp_path / "several.npy", expect=1)
    assert "several arrays" in result.output
    (tmp_path / "none.npy").write_bytes(b"no array")
    result = run(*train, tmp_path / "none.npy", expect=1)
    assert "not a .npy array" in result.output


@pytest.mark.parametrize("blocked", ["torch", "click", "sklearn"])
def test_without_the_extra_the_command_says_what_to_install(tmp_path, blocked):
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name.split('.')[0] == {blocked!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from elias_idx.cli import main\n"
        "main()\n"
    )
    arguments = ["train", str(write_set(tmp_path / "train.jsonl")), "--out", str(tmp_path / "model")]
    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "pip install 'elias_idx[train]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_serving_imports_numpy_alone():
    script = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'sklearn', 'safetensors', 'tqdm', 'click'): sys.modules[name] = None\n"
        "import numpy as np, elias_idx\n"
        "w = np.eye(2, dtype=np.float32)\n"
        "a = (np.array([0, 1, 2]), np.array([0, 1]), np.ones(2, np.float32))\n"
        "index = elias_idx.Index.build(w, np.zeros(2), a, w, np.zeros(2))\n"
        "print(index.search(w, 1).labels.ravel())\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[0 1]"


def test_the_version_is_the_package_s():
    assert elias_idx.__version__ in run("--version").output
