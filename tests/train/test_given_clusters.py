"""Where the clusters come from: the user, or a first stage 1."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from elias_idx import Index
from elias_idx.cli.commands import cli
from elias_idx.errors import ConfigError, DataError
from elias_idx.train import TrainingSet, dense, pipeline, train_model
from elias_idx.train.given_clusters import clusters_of_labels, read_clusters
from helpers_training import TINY, topic_texts

CONFIG = replace(TINY, num_clusters=None, stage1_epochs=1, stage2_epochs=0)
RECLUSTERED = replace(TINY, recluster_epochs=1, stage1_epochs=1, stage2_epochs=0)


@pytest.fixture(scope="module")
def data():
    return TrainingSet(*topic_texts(num_topics=16, per_topic=6))


def by_last_digit(data):
    return {name: f"digit {name[-1]}" for name in data.label_names}


def found_clusters(path):
    """The labels of each cluster that the model's index leads to, by name."""
    index = Index.load(path / "index")
    rows = np.split(index.adjacency.indices, index.adjacency.indptr[1:-1])
    return {frozenset(index.names(row)) for row in rows}


class Stopped(Exception):
    pass


def stop(*_):
    raise Stopped


def test_given_clusters_are_those_of_the_model(data, tmp_path):
    given = by_last_digit(data)
    train_model(data, tmp_path / "model", CONFIG, clusters=given | {"never seen": "digit x"})
    digits = {name[-1] for name in data.label_names}
    expected = {frozenset(name for name in data.label_names if name[-1] == digit) for digit in digits}
    assert found_clusters(tmp_path / "model") == expected


def test_the_model_tells_the_clusters_that_labels_began_in(data, tmp_path):
    given = by_last_digit(data)
    config = replace(CONFIG, stage2_epochs=1, adjacency_start="uniform")
    model = train_model(data, tmp_path / "model", config, clusters=given)
    digits = sorted(set(given.values()))
    assert model.initial_clusters.dtype == np.int32
    assert [digits[cluster] for cluster in model.initial_clusters] == [given[name] for name in data.label_names]


def test_clusters_are_ordered_by_name_and_must_cover_all_labels():
    given = {"a": "second", "b": "first", "c": "second", "unused": "zeroth"}
    assert [list(ids) for ids in clusters_of_labels(given, ["c", "a", "b"])] == [[2], [0, 1]]
    with pytest.raises(DataError, match=r"2 of the 3 labels have no cluster \('d', 'e'\)"):
        clusters_of_labels(given, ["d", "a", "e"])


@pytest.mark.parametrize("change", [{"cluster_by": "sparse"}, {"recluster_epochs": 1}, {"num_clusters": 3}])
def test_settings_that_contradict_given_clusters_are_refused_before_training(data, tmp_path, change):
    config = replace(CONFIG, **change)
    for function in (train_model, pipeline.dry_run):
        with pytest.raises(ConfigError, match=next(iter(change))):
            function(data, tmp_path / "model", config, clusters=by_last_digit(data))
    assert not list(tmp_path.iterdir())


def test_a_run_with_other_clusters_is_not_resumed(data, tmp_path):
    given = by_last_digit(data)
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", CONFIG, clusters=given, on_epoch=stop)
    first = data.label_names[0]
    for other in (given | {first: "elsewhere"}, None):
        config = CONFIG if other else replace(CONFIG, num_clusters=len(set(given.values())))
        with pytest.raises(ConfigError, match="given_clusters"):
            train_model(data, tmp_path / "model", config, clusters=other, if_exists="resume")
    train_model(data, tmp_path / "model", CONFIG, clusters=given, if_exists="resume")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"label": "a"}', "no 'cluster'"),
        ('{"label": "a", "cluster": 3}', "'cluster' must be a string"),
        ('{"label": "x", "cluster": "b"}', "'x' has a cluster already"),
        ("nonsense", "not a JSON object"),
    ],
)
def test_a_broken_file_of_clusters_is_explained(tmp_path, line, message):
    path = tmp_path / "clusters.jsonl"
    path.write_text('{"label": "x", "cluster": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"clusters.jsonl:2.*{message}"):
        read_clusters(path)


def test_the_command_line_takes_a_file_of_clusters(tmp_path, data):
    texts, labels = topic_texts(num_topics=16, per_topic=6)
    rows = [{"text": text, "labels": row} for text, row in zip(texts, labels, strict=True)]
    for name, lines in (
        ("train", rows),
        ("clusters", [{"label": label, "cluster": cluster} for label, cluster in by_last_digit(data).items()]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = [str(tmp_path / "train.jsonl"), "--out", str(tmp_path / "model"), "--stage2-epochs", "0"]
    options = ["--clusters", str(tmp_path / "clusters.jsonl"), "--dim", "8", "--stage1-epochs", "1"]
    result = CliRunner().invoke(cli, ["train", *arguments, *options])
    assert result.exit_code == 0, result.output
    assert len(found_clusters(tmp_path / "model")) == len(set(by_last_digit(data).values()))


@pytest.fixture(scope="module")
def reclustered(data, tmp_path_factory):
    out, stages = tmp_path_factory.mktemp("reclustered") / "model", []
    train_model(data, out, RECLUSTERED, on_epoch=lambda result: stages.append(result.progress.stage))
    return out, stages


def test_labels_are_clustered_again_by_n_grams_and_embeddings(data, reclustered, monkeypatch, tmp_path):
    out, stages = reclustered
    assert stages == [0, 1]
    train_model(data, tmp_path / "once", replace(RECLUSTERED, recluster_epochs=0))
    assert found_clusters(out) != found_clusters(tmp_path / "once")

    kinds, cluster_labels = [], dense.cluster_labels

    def spy(labels, features, *rest):
        kinds.append((features.sparse is not None, features.dense is not None))
        return cluster_labels(labels, features, *rest)

    monkeypatch.setattr(dense, "cluster_labels", spy)
    train_model(data, tmp_path / "bag", RECLUSTERED)
    embeddings = np.random.default_rng(0).normal(size=(len(data), 8)).astype(np.float32)
    precomputed = TrainingSet(embeddings, data.labels, label_names=data.label_names)
    train_model(precomputed, tmp_path / "precomputed", replace(RECLUSTERED, encoder="precomputed"))
    assert kinds == [(True, False), (True, True), (False, True), (False, True)]


@pytest.mark.parametrize("moment", ["epoch", "clustering", "start", "later epoch"])
def test_a_run_resumed_around_clustering_again_ends_like_an_undisturbed_one(
    data, reclustered, tmp_path, monkeypatch, moment
):
    on_epoch = None
    if moment == "epoch":
        on_epoch = stop
    elif moment == "later epoch":

        def on_epoch(result):
            if result.progress.stage == 1:
                raise Stopped

    else:
        # The second call of either is after the first stage.
        name = "cluster_labels" if moment == "clustering" else "start_stage1"
        monkeypatch.setattr(dense, name, second_fails(getattr(dense, name)))
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", RECLUSTERED, on_epoch=on_epoch)
    monkeypatch.undo()
    train_model(data, tmp_path / "model", RECLUSTERED, if_exists="resume")
    undisturbed, resumed = (Index.load(path / "index") for path in (reclustered[0], tmp_path / "model"))
    assert np.array_equal(undisturbed.label_weights, resumed.label_weights)
    assert np.array_equal(undisturbed.adjacency.indices, resumed.adjacency.indices)


def second_fails(function):
    calls = []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Stopped
        return function(*args, **kwargs)

    return call
