"""The recipes: their settings, and the commands on top of them, run on small made-up data of the right format."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from elias_idx.cli.commands import cli
from elias_idx.config import Config
from elias_idx.data import write_rows
from elias_idx.train.clustering import default_num_clusters
from helpers_training import topic_texts
from helpers_transformer import save_tiny_transformer

RECIPES = Path(__file__).parent.parent / "recipes"

# Training texts and labels at full size.
SIZES = {
    "amazon-3m": (1_717_899, 2_812_281),
    "amazon-670k": (490_449, 670_091),
    "eurlex57k": (45_000, 4_108),
    "icd10cm": (58_358, 46_881),
    "lf-amazontitles-1.3m": (2_248_619, 1_305_265),
    "lf-amazontitles-131k": (294_805, 131_073),
    "lf-wikipedia-500k": (1_813_391, 501_070),
    "lf-wikiseealso-320k": (693_082, 312_330),
    "tibkat": (81_937, 33_318),
    "wikipedia-500k": (1_813_391, 501_070),
}

SMALL = {
    "num_clusters": 8,
    "labels_per_cluster": 20,
    "train_beam_size": 3,
    "train_shortlist_size": 20,
    "stage1_epochs": 1,
    "stage2_epochs": 1,
    "batch_size": 64,
    "dim": 16,
    "min_word_texts": 1,
    "device": "cpu",
    "num_threads": 1,
}


def commands(name):
    """The commands in the comment on top of a recipe, but for the one that makes the demo's data."""
    lines = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").replace("\\\n#", "").splitlines()
    found = [shlex.split(line.removeprefix("#")) for line in lines if re.match(r"#\s+elias-idx", line)]
    return [arguments[1:] for arguments in found if arguments[1] != "demo"]


def write_data(path, has_named_labels):
    """Training, dev and test rows where the command names a file or, without a suffix, a raw-text folder."""
    sets = {
        part: list(zip(*topic_texts(num_topics=12, seed=seed), strict=True)) for seed, part in enumerate(("trn", "tst"))
    }
    if path.suffix == ".jsonl":
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = sets["trn" if path.stem == "train" else "tst"]
        write_rows(path, ({"text": text, "labels": labels} for text, labels in rows))
        return
    path.mkdir()
    names = sorted({label for _, labels in sets["trn"] for label in labels})
    for part, rows in sets.items():
        with gzip.open(path / f"{part}.json.gz", "wt", encoding="utf-8") as file:
            for text, labels in rows:
                row = {"title": text, "content": "", "target_ind": [names.index(label) for label in labels]}
                file.write(json.dumps(row) + "\n")
    if has_named_labels:
        with gzip.open(path / "lbl.json.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"uid": name, "title": name}) + "\n" for name in names)
        (path / "filter_labels_test.txt").write_text("0 1\n3 2\n", encoding="utf-8")


@pytest.fixture(scope="module")
def tiny_transformer(tmp_path_factory):
    words = sorted({word for text in topic_texts()[0] for word in text.split()})
    return save_tiny_transformer(tmp_path_factory.mktemp("transformer"), words)


def test_every_recipe_is_known_and_listed():
    assert {path.stem for path in RECIPES.glob("*.toml")} == SIZES.keys()
    listed = (RECIPES / "README.md").read_text(encoding="utf-8")
    for name, (num_texts, num_labels) in SIZES.items():
        row = next(line for line in listed.splitlines() if f"[{name}]({name}.toml)" in line)
        assert f"| {num_texts:,} | {num_labels:,} |" in row


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_s_commands_run(name, tmp_path, monkeypatch, request):
    config = Config.from_toml(RECIPES / f"{name}.toml")
    small = SMALL
    if config.encoder == "transformer":
        small = {**SMALL, "max_tokens": 32, "transformer": request.getfixturevalue("tiny_transformer")}
    (tmp_path / "recipes").symlink_to(RECIPES)
    monkeypatch.chdir(tmp_path)
    train, evaluate = commands(name)
    dev = [train[train.index("--dev") + 1]] if "--dev" in train else []
    for path in map(Path, (train[1], *dev, evaluate[2])):
        if not path.exists():
            write_data(path, has_named_labels=name.startswith("lf-"))
    options = [part for option, value in small.items() for part in (f"--{option.replace('_', '-')}", str(value))]
    for arguments in ([*train, *options], [*evaluate, "--json"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
    assert json.loads(result.stdout)["num_texts"] == len(topic_texts(num_topics=12)[0])


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_usual_number_of_clusters(name):
    _, num_labels = SIZES[name]
    assert Config.from_toml(RECIPES / f"{name}.toml").num_clusters == default_num_clusters(num_labels)
