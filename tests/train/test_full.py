"""The full preset: what is added to the dense model, chosen on held-out texts; resumed at every point."""

import re
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.sparse as sp

from elias_idx import Index, Model
from elias_idx.config import Config
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.train import TrainingSet, dense, dry_run, full, hold_out, parts, train_model
from elias_idx.train.logs import TrainingLog
from elias_idx.train.selection import Selection
from helpers_training import TINY, topic_features, topic_texts
from helpers_transformer import save_tiny_transformer

FULL = replace(TINY, preset="full", num_candidates=20)


@pytest.fixture(scope="module")
def data():
    return TrainingSet(*topic_texts())


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The model's folder, and the lines that the training said."""
    out, lines = tmp_path_factory.mktemp("full") / "model", []
    train_model(data, out, FULL, on_line=lines.append)
    return out, lines


class Stopped(Exception):
    pass


def files(folder):
    """The contents of a model's files."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_with_fusion_predicts_by_all_it_has(trained):
    model = Model.load(trained[0])
    assert model.index.has_fusion
    texts, labels = topic_texts(seed=1)
    both = [model.evaluate(texts, labels, ks=(1, 2), recall_ks=(5,), fusion=fusion) for fusion in (True, False)]
    assert both[0].metrics["P@2"] > 90
    assert both[0].metrics["P@2"] >= both[1].metrics["P@2"] - 2
    model.verify()


def test_predictions_are_the_search_of_embeddings_and_features(trained, monkeypatch):
    model = Model.load(trained[0])
    texts = [*topic_texts(seed=1)[0][:40], "", "unknown words"]
    sparse, embeddings = model.features.transform(texts), model.encode(texts)
    fused, alone = model.index.search(embeddings, 5, sparse=sparse), model.index.search(embeddings, 5)
    transform = Mock(side_effect=model.features.transform)
    monkeypatch.setattr(type(model.features), "transform", lambda _, *given: transform(*given))
    found = model.predict(texts, 5)
    # For embeddings and features both, texts are taken apart once.
    assert transform.call_count == 1
    for expected, predicted in ((fused, found), (alone, model.predict(texts, 5, fusion=False))):
        assert predicted.names == [
            [name for name in row if name] for row in model.index.names(expected.labels).tolist()
        ]
        scores = [score for row in predicted.scores for score in row]
        assert np.array_equal(np.float32(scores), expected.scores[expected.labels >= 0])
    assert found.scores != model.predict(texts, 5, fusion=False).scores
    assert model.predict([], 3) == ([], [])


def test_the_training_says_what_it_does(trained):
    _, lines = trained
    assert lines[0] == "480 texts, 45 labels; 96 of them held out"
    assert any(re.fullmatch(r"takes less than a minute, about \d+ MiB of memory", line) for line in lines)
    titles = [line for line in lines if line.startswith("step") and " took " not in line]
    assert titles[:4] == [
        "step 1: dense model of 384 texts",
        "step 2: sparse ranker of 384 texts",
        "step 3: fusion, fitted on 96 held-out texts",
        "step 4: dense model of 480 texts",
    ]
    assert any(line.startswith("dense model on 96 held-out texts: P@1 ") for line in lines)
    assert len([line for line in lines if " took " in line]) == len(titles)


def test_the_report_stays_with_the_model(trained):
    report = Model.load(trained[0]).report
    assert report["num_held_out"] == 96
    assert 1 <= report["epochs"]["1"] <= 3
    assert 1 <= report["epochs"]["2"] <= 2


def stop_in(patch, point):
    """Lets the training fail at a point, when what comes before is finished."""
    module, name, calls = point
    original, left = getattr(module, name), [calls]

    def doomed(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            raise Stopped
        return original(*args, **kwargs)

    patch.setattr(module, name, doomed)


# What fails, and at which of its calls.
POINTS = [
    (TrainingLog, "step", 20),
    (parts, "train_ranker", 1),
    (full, "fit_fusion", 1),
    (dense, "cluster_labels", 2),
    (TrainingLog, "step", 75),
    (parts, "train_ranker", 2),
    (Model, "save", 3),
]


@pytest.mark.parametrize("point", POINTS)
def test_a_resumed_training_ends_like_an_undisturbed_one(data, trained, tmp_path, monkeypatch, point):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        stop_in(patch, point)
        with pytest.raises(Stopped):
            train_model(data, out, replace(FULL, checkpoint_steps=6))
    assert [path.name for path in tmp_path.iterdir()] == ["model.training"]
    with pytest.raises(FileExistsError, match="unfinished run"):
        train_model(data, out, FULL)
    train_model(data, out, FULL, if_exists="resume")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert files(out) == files(trained[0])


def test_what_is_finished_is_not_made_again(data, tmp_path, monkeypatch):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        stop_in(patch, (Model, "save", 3))
        with pytest.raises(Stopped):
            train_model(data, out, FULL)
    for module, name in ((full, "train_dense"), (parts, "train_ranker"), (full, "fit_fusion")):
        monkeypatch.setattr(module, name, None)
    lines = []
    assert train_model(data, out, FULL, if_exists="resume", on_line=lines.append).index.has_fusion
    # Steps keep their numbers, and what the fusion came to is said again.
    assert "step 3: fusion, fitted on 96 held-out texts: finished before" in lines
    assert any(line.startswith("step 4: dense model of 480 texts") for line in lines)
    assert any(line.startswith("ranker ") and "gain" in line for line in lines)
    assert any("gain: that of their mean" in line and "96 held-out texts" in line for line in lines)


def test_dev_data_take_the_held_out_texts_place(data, tmp_path):
    lines = []
    dev = TrainingSet(*topic_texts(seed=1, per_topic=3))
    unseen = TrainingSet([*dev.inputs, "of no label"], with_new_label(dev), label_names=[*dev.label_names, "new"])
    model = train_model(data, tmp_path / "model", FULL, dev=unseen, on_line=lines.append)
    assert lines[0] == "480 texts, 45 labels; 121 dev texts"
    assert [line for line in lines if line.startswith("step") and " took " not in line] == [
        "step 1: dense model of 480 texts",
        "step 2: sparse ranker of 480 texts",
        "step 3: fusion, fitted on 121 dev texts",
    ]
    assert model.index.has_fusion
    assert model.num_training_texts == 480


def with_new_label(dev):
    """The dev labels with a row without any, and a label that no training text has on the first row."""
    column = sp.csr_matrix(([1.0], ([0], [0])), shape=(len(dev), 1))
    return sp.vstack([sp.hstack([dev.labels, column]), sp.csr_matrix((1, len(dev.label_names) + 1))], format="csr")


def test_dev_data_are_held_out_first_and_trained_on_then(data, tmp_path):
    texts, labels = topic_texts(per_topic=4, seed=1)
    # A label that only one dev text has: that text is trained on from the start.
    dev = TrainingSet([*texts, "a word of its own"], [*labels, ["rare"]])
    lines = []
    model = train_model(data, tmp_path / "model", FULL, dev=dev, refit=True, on_line=lines.append)
    assert "rare" in model.index.label_names
    assert model.num_training_texts == len(data) + len(dev)
    held_out = model.report["num_held_out"]
    assert hold_out.FEWEST <= held_out <= len(texts)
    assert f"{held_out} of them held out" in lines[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "refit trains on the dev data"), ({"preset": "fast"}, "refit is for the preset full")],
)
def test_refit_needs_dev_data_and_the_full_preset(data, tmp_path, settings, message):
    dev = data if settings else None
    with pytest.raises(ConfigError, match=message):
        train_model(data, tmp_path / "model", replace(FULL, **settings), dev=dev, refit=True)


def test_refit_needs_dev_texts_that_can_be_held_out(data, tmp_path):
    """Else epochs would be chosen by texts that are trained on."""
    embeddings = np.random.default_rng(0).normal(size=(len(data), 8)).astype(np.float32)
    for sets, settings in (
        ((data, data.subset(np.arange(20))), {}),
        ((TrainingSet(embeddings, data.labels, label_names=data.label_names),) * 2, {"encoder": "precomputed"}),
    ):
        with pytest.raises(ConfigError, match=r"refit can't hold out dev texts: .*leave it out"):
            dry_run(sets[0], tmp_path / "model", replace(FULL, **settings), dev=sets[1], refit=True)


def test_sparse_features_get_the_full_preset(tmp_path):
    features, labels = topic_features()
    model = train_model(TrainingSet(features, labels), tmp_path / "model", FULL)
    assert model.index.has_fusion
    features, labels = topic_features(seed=1)
    assert model.evaluate(features, labels, ks=(1,), recall_ks=()).metrics["P@1"] > 90


def test_embeddings_and_few_texts_train_the_dense_model_alone(data, tmp_path):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 8)).astype(np.float32)
    lines = []
    given = TrainingSet(embeddings, [[f"l{number % 20}"] for number in range(400)])
    model = train_model(given, tmp_path / "given", replace(FULL, encoder="precomputed"), on_line=lines.append)
    assert not model.index.has_fusion
    few = data.subset(np.arange(0, 480, 4))
    model = train_model(few, tmp_path / "few", FULL, on_line=lines.append)
    assert not model.index.has_fusion
    dev = TrainingSet(*topic_texts(num_topics=8, per_topic=2))
    train_model(data, tmp_path / "small_dev", FULL, dev=dev, on_line=lines.append)
    one = TrainingSet(data.inputs, [["only"]] * len(data))
    train_model(one, tmp_path / "one", replace(FULL, num_clusters=None), dev=dev, on_line=lines.append)
    reasons = [re.search("the dense model alone is trained(.*)", line) for line in lines]
    assert [reason.group(1) for reason in reasons if reason] == [
        ", for as many epochs as the settings say: embeddings have no sparse features to rank by",
        ", for as many epochs as the settings say: of 120 texts only 24 can be held out (a fifth of all at most, whole "
        "groups, and none without a label that another text has), but to choose epochs and fit a fusion takes 50",
        ": to fit a fusion takes 50 dev texts with labels, not 16",
        ": a single label leaves nothing to rank",
    ]


@pytest.mark.parametrize("given", [False, True])
def test_held_out_texts_may_have_labels_of_their_own(tmp_path, given):
    """The first model doesn't know these labels, the final one does; clusters may be left without a label."""
    texts, labels = topic_texts(per_topic=9)
    data = TrainingSet(texts, [[*row, f"own{number}"] for number, row in enumerate(labels)])
    clusters, lines = {name: name if name in ("own3", "own5") else name[0] for name in data.label_names}, []
    config = replace(FULL, num_clusters=None if given else 8)
    model = train_model(
        data, tmp_path / "model", config, clusters=clusters if given else None, on_line=lines.append
    )  # fmt: skip
    assert "72 of them held out" in lines[0]
    assert model.index.has_fusion
    assert "own3" in model.index.label_names
    assert model.evaluate(*topic_texts(seed=1), ks=(1,), recall_ks=()).metrics["P@1"] > 80


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["same words"] * 400, [[f"l{number % 7}"] for number in range(400)]),
        ([f"word{number}" for number in range(30)], [[f"l{number % 3}"] for number in range(30)]),
        ([f"word{number % 9} and {number}" for number in range(400)], [["a", "b"]] * 400),
        ([f"word{number} x" for number in range(400)], [["a"], *([["b"]] * 399)]),
    ],
)
def test_odd_sets_train(tmp_path, texts, labels):
    lines = []
    model = train_model(TrainingSet(texts, labels), tmp_path / "model", Config(num_threads=1), on_line=lines.append)
    assert any("without stage 2, since one cluster has no adjacency to learn" in line for line in lines)
    assert model.index.has_fusion or any("the dense model alone is trained" in line for line in lines)
    assert len(model.predict(texts[:1], 2).names[0]) >= 1


def test_early_stopping_needs_no_dev_data_where_texts_are_held_out(data, tmp_path):
    config = replace(FULL, early_stopping=1, stage1_epochs=2, stage2_epochs=1)
    assert train_model(data, tmp_path / "model", config).index.has_fusion
    with pytest.raises(ConfigError, match="compares epochs on dev data"):
        train_model(data, tmp_path / "fast", replace(config, preset="fast"))


def test_a_run_that_cant_start_leaves_nothing_behind(data, tmp_path):
    wordless = TrainingSet([". " * number for number in range(300)], [[f"l{number % 10}"] for number in range(300)])
    with pytest.raises(DataError, match="without any word"):
        train_model(wordless, tmp_path / "model", replace(FULL, num_clusters=2))
    with pytest.raises(ConfigError):
        train_model(data, tmp_path / "model", replace(FULL, num_clusters=1000))
    assert list(tmp_path.iterdir()) == []


def test_the_final_stages_end_where_the_best_epochs_were(data, tmp_path):
    """With learning rates as if they went on, since those told which epoch is best."""
    seen = []
    model = train_model(data, tmp_path / "model", replace(FULL, stage1_epochs=5), on_epoch=seen.append)
    ends = [(result.progress.stage, result.progress.epochs_done) for result in seen if result.ends_stage]
    epochs = model.report["epochs"]
    assert ends == [(1, 5), (2, 2), (1, epochs["1"]), (2, epochs["2"])]
    assert [result.num_epochs for result in seen][-1] == epochs["2"]


def test_a_first_training_ends_when_a_third_of_its_epochs_were_no_better(data, tmp_path, monkeypatch):
    averaged = ("P@1", "P@3", "P@5", "R@10", "R@100")
    scores = iter([50.0, 70.0, *([60.0] * 30)])
    monkeypatch.setattr(
        Selection, "evaluate", lambda self, _: dict.fromkeys(averaged, next(scores)) if self.dev else {}
    )
    seen = []
    train_model(data, tmp_path / "model", replace(FULL, stage1_epochs=12), on_epoch=seen.append)
    ends = [(result.progress.stage, result.progress.epochs_done) for result in seen if result.ends_stage]
    # Twelve epochs have a patience of four.
    assert ends == [(1, 6), (2, 2), (1, 2), (2, 1)]


def test_memory_of_the_parts_is_counted(data, tmp_path):
    names = {part.name for part in dry_run(data, tmp_path / "model", FULL).parts if part.num_bytes}
    assert {"ranker", "examples of labels", "evidence of held-out texts"} <= names
    fast = {part.name for part in dry_run(data, tmp_path / "model", TINY).parts}
    assert "ranker" not in fast
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_features_are_others_is_damaged(trained, data, tmp_path):
    model = Model.load(trained[0])
    other = train_model(data, tmp_path / "other", replace(TINY, char_ngrams=(0, 0)))
    with pytest.raises(FormatError, match="sparse features"):
        Model.load(saved(replace(other, index=model.index.quantize("float32")), tmp_path / "mixed"))


def saved(model, path):
    model.save(path)
    return path


@pytest.mark.parametrize("encoder", ["transformer", "bag+transformer"])
def test_beside_a_transformer_the_fusion_has_n_grams(data, tmp_path, encoder):
    words = sorted({word for text in data.inputs for word in text.split()})
    (tmp_path / "bert").mkdir()
    transformer = save_tiny_transformer(tmp_path / "bert", words)
    config = replace(FULL, encoder=encoder, transformer=transformer, frozen=True, max_tokens=12, stage1_epochs=1)
    out = tmp_path / "model"
    train_model(data, out, config)
    model = Model.load(out)
    # A bag's own ones serve both.
    assert (out / "features").exists() == (encoder == "transformer")
    assert model.index.num_features == model.features.num_features
    texts, labels = topic_texts(seed=1)
    assert model.evaluate(texts, labels).metrics["P@1"] > 80
    model.save(out, overwrite=True)
    Model.load(out).verify()
    if encoder == "transformer":
        (out / "features" / "features.safetensors").write_bytes(b"damaged")
        with pytest.raises(FormatError):
            model.verify()


def test_the_index_opens_without_the_rest(trained):
    assert Index.load(trained[0] / "index").has_fusion
