"""The recipes: their settings, and the commands on top of them, run on small made-up data of the right format."""

import gzip
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from elias_idx.cli.commands import cli
from elias_idx.config import Config
from elias_idx.data import write_rows
from elias_idx.train.auto import resolved_for_sizes
from elias_idx.train.clustering import default_num_clusters
from elias_idx.train.memory import memory_account
from elias_idx.train.model_sizes import ModelSizes, TransformerSizes
from helpers_training import topic_texts
from helpers_transformer import save_tiny_transformer

RECIPES = Path(__file__).parent.parent / "recipes"


class Size(NamedTuple):
    """Of a whole data set: training texts, labels, labels a text, and roughly the words of a text."""

    num_texts: int
    num_labels: int
    labels_per_text: float
    words: int


SIZES = {
    "amazon-3m": Size(1_717_899, 2_812_281, 36.04, 100),
    "amazon-670k": Size(490_449, 670_091, 5.45, 100),
    "eurlex57k": Size(45_000, 4_108, 5.07, 583),
    "icd10cm": Size(58_358, 46_881, 3.9, 10),
    "lf-amazontitles-1.3m": Size(2_248_619, 1_305_265, 22.20, 10),
    "lf-amazontitles-131k": Size(294_805, 131_073, 2.29, 10),
    "lf-wikipedia-500k": Size(1_813_391, 501_070, 4.77, 400),
    "lf-wikiseealso-320k": Size(693_082, 312_330, 2.11, 200),
    "tibkat": Size(81_937, 33_318, 2.84, 168),
    "wikipedia-500k": Size(1_813_391, 501_070, 4.77, 400),
}

BERT_BASE = TransformerSizes(num_parameters=109_482_240, num_layers=12, hidden_size=768, num_heads=12)

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
    """Training, dev and test rows, or label texts, for a file; all of a raw-text folder, which has no suffix."""
    sets = {
        part: list(zip(*topic_texts(num_topics=12, seed=seed), strict=True)) for seed, part in enumerate(("trn", "tst"))
    }
    if path.name == "labels.jsonl":
        names = sorted({label for _, labels in sets["trn"] for label in labels})
        write_rows(path, ({"label": name, "text": name, "parents": []} for name in names))
        return
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
    for name, size in SIZES.items():
        row = next(line for line in listed.splitlines() if f"[{name}]({name}.toml)" in line)
        assert f"| {size.num_texts:,} | {size.num_labels:,} |" in row


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_s_commands_run(name, tmp_path, monkeypatch, request):
    config = Config.from_toml(RECIPES / f"{name}.toml")
    small = SMALL
    if config.encoder == "transformer":
        small = {**SMALL, "max_tokens": 32, "transformer": request.getfixturevalue("tiny_transformer")}
    (tmp_path / "recipes").symlink_to(RECIPES)
    monkeypatch.chdir(tmp_path)
    train, evaluate = commands(name)
    options = [train[train.index(option) + 1] for option in ("--dev", "--labels") if option in train]
    for path in map(Path, (train[1], *options, evaluate[2])):
        if not path.exists():
            write_data(path, has_named_labels=name.startswith("lf-"))
    options = [part for option, value in small.items() for part in (f"--{option.replace('_', '-')}", str(value))]
    for arguments in ([*train, *options], [*evaluate, "--json"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
    assert json.loads(result.stdout)["num_texts"] == len(topic_texts(num_topics=12)[0])


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_usual_number_of_clusters(name):
    config = Config.from_toml(RECIPES / f"{name}.toml")
    assert config.num_clusters == default_num_clusters(SIZES[name].num_labels)


@pytest.mark.parametrize("name", ["eurlex57k", "icd10cm", "tibkat"])
def test_recipes_of_the_bag_are_the_settings_that_follow_from_the_data(name):
    sizes = (SIZES[name].num_texts, SIZES[name].num_labels)
    recipe = Config.from_toml(RECIPES / f"{name}.toml")
    assert resolved_for_sizes(recipe, *sizes) == resolved_for_sizes(Config(), *sizes)


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_s_memory_at_full_size_is_that_of_one_machine(name):
    config, size = Config.from_toml(RECIPES / f"{name}.toml"), SIZES[name]
    on_gpu = config.encoder == "transformer"
    # Word pairs and character n-grams are several times as many as words.
    features = size.num_texts * size.words * (1 if on_gpu else 3)
    sizes = ModelSizes(
        size.num_texts,
        size.num_labels,
        num_pairs=int(size.num_texts * size.labels_per_text),
        num_features=300_000,
        num_entries=features,
        text_bytes=size.num_texts * size.words * 7,
        transformer=BERT_BASE if on_gpu else None,
    )
    account = memory_account(config, sizes)
    assert account.peak() < (128 if on_gpu else 16) * 2**30
    # On a GPU with 40 GiB. With classifiers in bfloat16, which CPUs train, 10 GiB hold all that belongs to labels.
    assert account.peak(on_device=True) < 36 * 2**30
    account = memory_account(replace(config, device="cpu", label_dtype="bfloat16"), sizes)
    of_labels = [part for part in account.parts if part.name.startswith(("label classifiers", "adjacency"))]
    assert {part.name for part in of_labels} >= {"label classifiers", "label classifiers' momentum"}
    assert sum(part.num_bytes for part in of_labels if part.span != "until stage 2") < 10 * 2**30
