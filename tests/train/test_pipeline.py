"""Training from texts to a saved model, on a small made-up task."""

import json
import subprocess
import sys
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from elias_idx import Index, Model
from elias_idx.config import Config
from elias_idx.errors import ConfigError, DataError, FormatError, TrainingError
from elias_idx.train import TrainingSet, checkpoint, run_folder, stages, train_model
from elias_idx.train.checkpoint import Progress
from elias_idx.train.epoch import train_steps
from elias_idx.train.logs import TrainingLog
from helpers_training import TINY, topic_features, topic_texts

pytestmark = pytest.mark.usefixtures("checkpoint_every_epoch")


@pytest.fixture(scope="module")
def data():
    return TrainingSet(*topic_texts())


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pipeline") / "model"
    results = []
    train_model(data, out, TINY, on_epoch=lambda result: results.append((result.progress, result.progress.loss)))
    return out, results


class Stopped(Exception):
    pass


def stop_after(progress):
    def on_epoch(result):
        if result.progress == progress:
            raise Stopped

    return on_epoch


def stop_at_step(step):
    """A stand-in for `TrainingLog.step` that fails at one of the run's steps, from 0 on."""
    return Mock(side_effect=[None] * step + [Stopped])


def arrays(path):
    index = Index.load(path / "index")
    return [
        index.cluster_weights, index.cluster_bias, *index.adjacency, index.label_weights, index.label_bias,
        Model.load(path).encoder.embeddings,
    ]  # fmt: skip


def test_the_model_learns_the_task(trained):
    out, results = trained
    texts, labels = topic_texts(seed=1)
    result = Model.load(out).evaluate(texts, labels, ks=(1, 2), recall_ks=(5,))
    assert result.metrics["P@2"] > 90
    assert [progress for progress, _ in results] == [
        Progress(1, 1),
        Progress(1, 2),
        Progress(1, 3),
        Progress(2, 1),
        Progress(2, 2),
    ]
    assert results[2][1] < results[0][1]


def test_nothing_but_the_model_is_left(trained):
    out, _ = trained
    assert [entry.name for entry in out.parent.iterdir()] == ["model"]
    assert sorted(entry.name for entry in out.iterdir()) == [
        "encoder",
        "index",
        "labels.safetensors",
        "model.json",
    ]


def test_the_same_seed_gives_the_same_model(data, trained, tmp_path):
    train_model(data, tmp_path / "again", TINY)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(trained[0]), arrays(tmp_path / "again"), strict=True))


@pytest.mark.parametrize("moment", [Progress(1, 1), Progress(1, 3), Progress(2, 1), Progress(2, 2)])
def test_a_resumed_run_ends_like_an_undisturbed_one(data, trained, tmp_path, moment):
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train_model(data, out, TINY, on_epoch=stop_after(moment))
    assert not out.exists()
    seen = []
    train_model(data, out, TINY, if_exists="resume", on_epoch=lambda result: seen.append(result.progress))
    # The epoch of the checkpoint is reported again: its report may be what was interrupted.
    assert seen[0] == moment
    assert seen.count(moment) == 1
    assert all(np.array_equal(a, b) for a, b in zip(arrays(trained[0]), arrays(out), strict=True))


@pytest.mark.parametrize("step", [1, 7, 15, 16, 47, 48, 74])
def test_a_run_resumed_within_an_epoch_ends_like_an_undisturbed_one(data, trained, tmp_path, monkeypatch, step):
    """An epoch has 15 steps: the checkpoint may be of the same epoch, of the one before, or missing."""
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "step", stop_at_step(step))
        with pytest.raises(Stopped):
            train_model(data, out, replace(TINY, checkpoint_steps=4))
    losses = []
    train_model(data, out, TINY, if_exists="resume", on_epoch=lambda result: losses.append(result.progress.loss))
    assert losses == [loss for _, loss in trained[1]][-len(losses) :]
    assert all(np.array_equal(a, b) for a, b in zip(arrays(trained[0]), arrays(out), strict=True))


def test_classifiers_in_bfloat16_resume_alike_and_are_about_as_good(data, trained, tmp_path, monkeypatch):
    config = replace(TINY, label_dtype="bfloat16")
    _, model = resumed_and_undisturbed(data, tmp_path, monkeypatch, config, step=55)

    in_float32 = Model.load(trained[0])
    assert not np.array_equal(model.index.label_weights, in_float32.index.label_weights)
    texts, labels = topic_texts(seed=1)
    found, expected = (one.evaluate(texts, labels, ks=(2,), recall_ks=()) for one in (model, in_float32))
    assert found.metrics["P@2"] == pytest.approx(expected.metrics["P@2"], abs=5)


def resumed_and_undisturbed(data, tmp_path, monkeypatch, config, step):
    """The model of a run that stopped at a step and was resumed, and that of one that wasn't."""
    undisturbed = train_model(data, tmp_path / "undisturbed", config)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "step", stop_at_step(step))
        with pytest.raises(Stopped):
            train_model(data, tmp_path / "stopped", replace(config, checkpoint_steps=4))
    resumed = train_model(data, tmp_path / "stopped", config, if_exists="resume")
    both = arrays(tmp_path / "undisturbed"), arrays(tmp_path / "stopped")
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    return resumed, undisturbed


def test_a_checkpoint_of_another_version_is_refused(data, tmp_path):
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train_model(data, out, replace(TINY, checkpoint_steps=1000), on_epoch=stop_after(Progress(2, 1)))
    (path,) = (tmp_path / "model.training").glob("checkpoint-2-*")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if "initial_cluster" not in name}  # noqa: SIM118
        save_file(tensors, path, file.metadata())
    with pytest.raises(FormatError, match=r"another version: remove .* to start over"):
        train_model(data, out, TINY, if_exists="resume")


def test_a_run_resumed_in_stage_2_knows_where_labels_began(data, tmp_path, monkeypatch):
    config = replace(TINY, adjacency_start="uniform", stage2_epochs=3)
    resumed, undisturbed = resumed_and_undisturbed(data, tmp_path, monkeypatch, config, step=70)
    np.testing.assert_array_equal(resumed.initial_clusters, undisturbed.initial_clusters)
    # Which their edges don't tell.
    best = [resumed.index.clusters(label).clusters[0] for label in range(resumed.index.num_labels)]
    assert (resumed.initial_clusters != best).any()


@pytest.mark.parametrize("label_dtype", ["float32", "bfloat16"])
def test_a_label_projection_is_trained_resumed_and_served(data, tmp_path, monkeypatch, label_dtype):
    config = replace(TINY, label_dim=10, label_dtype=label_dtype)
    resumed, undisturbed = resumed_and_undisturbed(data, tmp_path, monkeypatch, config, step=55)
    assert undisturbed.index.label_weights.shape == (45, 10)
    assert np.array_equal(resumed.index.label_projection, undisturbed.index.label_projection)
    texts, labels = topic_texts(seed=1)
    assert undisturbed.evaluate(texts, labels, ks=(2,), recall_ks=()).metrics["P@2"] > 80


def weights_after_epochs(data, out, config):
    """The label classifiers and n-gram embeddings as they are reported after each epoch of stage 2."""
    found = []

    def remember(result):
        if result.progress.stage == 2:
            model = result.model()
            found.append((np.array(model.index.label_weights), np.array(model.encoder.embeddings)))

    train_model(data, out, config, on_epoch=remember)
    return found


@pytest.mark.parametrize("label_dtype", ["float32", "bfloat16"])
def test_the_model_is_the_mean_of_the_last_epochs(data, tmp_path, label_dtype):
    config = replace(TINY, stage2_epochs=3, label_dtype=label_dtype)
    plain = weights_after_epochs(data, tmp_path / "plain", config)
    averaged = weights_after_epochs(data, tmp_path / "averaged", replace(config, averaged_epochs=2))
    for part, tolerance in ((0, 1e-6 if label_dtype == "float32" else 2**-8), (1, 1e-6)):
        assert np.array_equal(averaged[0][part], plain[0][part])
        assert np.array_equal(averaged[1][part], plain[1][part])
        assert averaged[2][part] == pytest.approx((plain[1][part] + plain[2][part]) / 2, rel=tolerance, abs=1e-6)
    model, other = Model.load(tmp_path / "averaged"), Model.load(tmp_path / "plain")
    assert np.array_equal(model.index.label_weights, averaged[2][0])
    assert np.array_equal(model.encoder.embeddings, averaged[2][1])
    # Training itself is the same, and the adjacency isn't averaged.
    assert np.array_equal(model.index.adjacency.data, other.index.adjacency.data)


# Within the second epoch of stage 2, at its end, and within the third: from 60 on, with 15 steps an epoch.
@pytest.mark.parametrize(("step", "label_dtype"), [(70, "bfloat16"), (75, "float32"), (82, "float32")])
def test_averages_survive_an_interruption(data, tmp_path, monkeypatch, step, label_dtype):
    config = replace(TINY, stage2_epochs=3, averaged_epochs=3, label_dtype=label_dtype)
    resumed_and_undisturbed(data, tmp_path, monkeypatch, config, step)


def test_a_label_projection_makes_embeddings_no_larger(data, tmp_path):
    with pytest.raises(ConfigError, match="label_dim is 17, but embeddings have 16 dimensions"):
        train_model(data, tmp_path / "model", replace(TINY, label_dim=17))
    assert list(tmp_path.iterdir()) == []


def test_labels_are_not_clustered_again_after_a_resume(data, trained, tmp_path, monkeypatch):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "step", stop_at_step(0))
        with pytest.raises(Stopped):
            train_model(data, out, TINY)
    monkeypatch.setattr("elias_idx.train.dense.cluster_labels", None)
    train_model(data, out, TINY, if_exists="resume")
    assert all(np.array_equal(a, b) for a, b in zip(arrays(trained[0]), arrays(out), strict=True))


def test_teacher_forcing_follows_the_adjacency_every_epoch(data, tmp_path, monkeypatch):
    seen = []

    def recorded(trainee, *arguments):
        adjacency = trainee.network.adjacency
        before = adjacency.best_cluster.clone()
        adjacency.refresh_best_cluster()
        seen.append((before, adjacency.best_cluster.clone()))
        return train_steps(trainee, *arguments)

    monkeypatch.setattr(stages, "train_steps", recorded)
    train_model(data, tmp_path / "model", replace(TINY, stage2_epochs=3, adjacency_start="uniform"))
    assert len(seen) == 6
    assert all(torch.equal(used, fresh) for used, fresh in seen)
    assert not torch.equal(seen[3][0], seen[5][0])


def test_only_the_newest_checkpoint_is_kept(data, tmp_path):
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", TINY, on_epoch=stop_after(Progress(2, 1)))
    found = sorted(entry.name for entry in (tmp_path / "model.training").iterdir())
    assert found == ["checkpoint-2-1-0.safetensors", "clusters.safetensors", "run.json", "state.json"]


@pytest.mark.parametrize(("steps", "written"), [(None, 0), (1000, 4)])
def test_quick_epochs_have_checkpoints_only_if_they_are_asked_for(data, tmp_path, monkeypatch, steps, written):
    monkeypatch.setattr(stages, "CHECKPOINT_SECONDS", 60.0)
    write = Mock(side_effect=checkpoint.Checkpoints.write)
    monkeypatch.setattr(checkpoint.Checkpoints, "write", lambda *given: write(*given))
    config = replace(TINY, checkpoint_steps=steps)
    with pytest.raises(Stopped):
        train_model(data, tmp_path / "model", config, on_epoch=stop_after(Progress(2, 1)))
    assert write.call_count == written


def test_stage_2_can_be_left_out(data, tmp_path):
    model = train_model(data, tmp_path / "model", replace(TINY, stage2_epochs=0))
    assert (model.index.adjacency.data == 1).all()
    assert len(model.index.adjacency.indices) == model.index.num_labels


def test_an_unfinished_run_is_not_overwritten_unasked(data, tmp_path):
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train_model(data, out, TINY, on_epoch=stop_after(Progress(1, 1)))
    with pytest.raises(FileExistsError, match="unfinished run"):
        train_model(data, out, TINY)
    with pytest.raises(ConfigError, match="other values of batch_size"):
        train_model(data, out, replace(TINY, batch_size=16), if_exists="resume")
    other = TrainingSet(data.inputs[:-1], data.labels[:-1], label_names=data.label_names)
    with pytest.raises(ConfigError, match="other values of training_data"):
        train_model(other, out, TINY, if_exists="resume")


@pytest.mark.parametrize("name", ["checkpoint-1-1-0.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_an_explained_error(data, tmp_path, name):
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        train_model(data, out, TINY, on_epoch=stop_after(Progress(1, 1)))
    damaged = tmp_path / "model.training" / name
    damaged.write_bytes(damaged.read_bytes()[: 1000 if name.endswith("safetensors") else 20])
    with pytest.raises(FormatError, match=r"damaged or missing: remove .*model\.training to start over"):
        train_model(data, out, TINY, if_exists="resume")


def test_a_model_is_replaced_only_when_asked_and_only_by_a_whole_one(data, tmp_path):
    out = tmp_path / "model"
    train_model(data, out, TINY)
    before = (out / "model.json").read_bytes()
    with pytest.raises(FileExistsError):
        train_model(data, out, TINY)
    other = replace(TINY, seed=7)
    with pytest.raises(Stopped):
        train_model(data, out, other, if_exists="overwrite", on_epoch=stop_after(Progress(2, 2)))
    assert (out / "model.json").read_bytes() == before
    train_model(data, out, other, if_exists="overwrite")
    assert json.loads((out / "model.json").read_text())["settings"]["seed"] == 7


def test_only_models_are_replaced(data, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is no model"):
        train_model(data, tmp_path / "model", TINY, if_exists="overwrite")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "precious"


def test_missing_parent_folder_is_found_before_training(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        train_model(data, tmp_path / "no" / "model", TINY)


def test_precomputed_embeddings_train_and_predict(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 12))
    topics = rng.integers(0, 30, 600)
    embeddings = (centres[topics] + 0.1 * rng.normal(size=(600, 12))).astype(np.float32)
    labels = [[f"t{topic}"] for topic in topics]
    config = replace(TINY, encoder="precomputed", num_clusters=4, stage1_epochs=10)
    model = train_model(TrainingSet(embeddings, labels), tmp_path / "model", config)
    fresh = (centres + 0.1 * rng.normal(size=(30, 12))).astype(np.float32)
    found = model.predict(fresh, 1)
    assert np.mean([names == [f"t{topic}"] for topic, names in enumerate(found.names)]) > 0.9
    with pytest.raises(DataError, match=r"float array \[N, 12\]"):
        model.predict(np.zeros((2, 5)))


def test_sparse_features_train_and_predict(tmp_path):
    model = train_model(TrainingSet(*topic_features()), tmp_path / "model", TINY)
    features, labels = topic_features(seed=1)
    assert model.evaluate(features, labels, ks=(1,), recall_ks=()).metrics["P@1"] > 90
    found = model.predict(features, 2)
    # Only the direction of a row counts.
    assert model.predict(2 * features, 2).names == found.names
    with pytest.raises(DataError, match="takes 125 features a row, got 100"):
        model.predict(features[:, :100])
    with pytest.raises(DataError, match="takes sparse features"):
        model.predict(["topic1x"])


def test_sparse_features_are_not_for_an_encoder_of_embeddings(tmp_path):
    with pytest.raises(DataError, match="takes a float array"):
        train_model(TrainingSet(*topic_features()), tmp_path / "model", replace(TINY, encoder="precomputed"))


def test_labels_without_a_text_are_left_out_of_the_model(data, tmp_path):
    labels = sp.hstack([sp.csr_matrix((len(data), 1)), data.labels], format="csr")
    padded = TrainingSet(data.inputs, labels, label_names=["never", *data.label_names])
    model = train_model(padded, tmp_path / "model", TINY)
    assert list(model.index.label_names) == list(data.label_names)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ([], [], "empty"),
        (["a"], [[]], "empty"),
        (["a", "b"], [["x"]], "2 inputs, but labels for 1"),
        (["a"], ["xy"], "row 0: labels must be a list of strings, got the string 'xy'"),
        (["a"], [[3]], "row 0: labels must be strings, got 3"),
        ([3], [["x"]], "row 0: the text must be a string, got int"),
    ],
)
def test_sets_that_cant_be_trained_on(inputs, labels, message):
    with pytest.raises(DataError, match=message):
        TrainingSet(inputs, labels)


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["", " "], {}, "2 training texts without any word"),
        (["apple", "pear"], {"min_word_texts": 2, "min_char_texts": 2, "char_ngrams": (5, 5)}, "no features"),
    ],
)
def test_texts_without_any_feature_are_an_error(tmp_path, texts, settings, message):
    config = Config(num_threads=1, **settings)
    with pytest.raises(DataError, match=message):
        train_model(TrainingSet(texts, [["a"], ["b"]]), tmp_path / "model", config)


def test_more_clusters_than_labels_are_an_error(data, tmp_path):
    with pytest.raises(ConfigError, match="only 45 labels"):
        train_model(data, tmp_path / "model", Config(num_clusters=46))


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(data, tmp_path, device):
    with pytest.raises(ConfigError, match="can't be used"):
        train_model(data, tmp_path / "model", replace(TINY, device=device))
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_run_says_so(data, tmp_path):
    with pytest.raises(TrainingError, match="lower learning rates"):
        train_model(data, tmp_path / "model", replace(TINY, label_learning_rate=1e30))


def test_resuming_a_finished_model_checks_that_it_is_the_same(data, trained):
    out, _ = trained
    assert train_model(data, out, TINY, if_exists="resume").index.num_labels == 45
    with pytest.raises(ConfigError, match=r"the model at .* had other values of dim"):
        train_model(data, out, replace(TINY, dim=8), if_exists="resume")


def test_large_clusters_keep_their_labels_whatever_kappa_is(data, tmp_path):
    model = train_model(data, tmp_path / "model", replace(TINY, num_clusters=2, labels_per_cluster=10))
    assert set(model.index.adjacency.indices) == set(range(45))


def test_several_threads_give_the_same_bits_every_time(tmp_path):
    # Large enough batches that torch splits its work.
    data = TrainingSet(*topic_texts(num_topics=400, per_topic=4))
    config = replace(TINY, batch_size=128, train_shortlist_size=300, train_beam_size=8, num_threads=2, stage1_epochs=1)
    for name in ("one", "two"):
        train_model(data, tmp_path / name, config)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(tmp_path / "one"), arrays(tmp_path / "two"), strict=True))


def test_torch_is_left_as_it_was(data, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train_model(data, tmp_path / "model", TINY)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", ["nan", "ints", "flat"])
def test_bad_embeddings_are_an_error(tmp_path, kind):
    arrays = {"nan": np.full((2, 3), np.nan), "ints": np.ones((2, 3), int), "flat": np.ones(2)}
    with pytest.raises(DataError):
        train_model(TrainingSet(arrays[kind], [["a"], ["b"]]), tmp_path / "model", Config(encoder="precomputed"))


def test_texts_without_labels_and_unknown_words_are_harmless(tmp_path):
    texts, labels = topic_texts(num_topics=6, per_topic=8)
    model = train_model(
        TrainingSet([*texts, "", "alone"], [*labels, [], ["t0"]]),
        tmp_path / "model",
        replace(TINY, num_clusters=2),
    )
    found = model.predict(["", "zzz ööö", texts[0]], 3)
    assert [len(names) for names in found.names] == [3, 3, 3]
    assert np.isfinite(found.scores).all()


@pytest.mark.gpu
def test_training_runs_on_a_gpu(data, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = train_model(data, tmp_path / "model", replace(TINY, device="cuda"))
    texts, labels = topic_texts(seed=1)
    assert model.evaluate(texts, labels, ks=(1, 2), recall_ks=()).metrics["P@2"] > 90


def test_arguments_of_other_kinds_are_refused(data, tmp_path):
    with pytest.raises(TypeError, match="takes a TrainingSet and a Config, got TrainingSet and dict"):
        train_model(data, tmp_path / "model", {"dim": 3})
    with pytest.raises(TypeError, match="got list and NoneType"):
        train_model(["a text"], tmp_path / "model")
    with pytest.raises(TypeError, match="dev must be a TrainingSet, got list"):
        train_model(data, tmp_path / "model", TINY, dev=["a text"])


def test_two_processes_never_train_at_one_place(data, tmp_path):
    out = tmp_path / "model"
    script = (
        "import sys, time; from pathlib import Path; from elias_idx.train.run_folder import alone\n"
        "with alone(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        for if_exists in ("error", "overwrite", "resume"):
            with pytest.raises(FileExistsError, match=r"another process is training at .*model\.training"):
                train_model(data, out, TINY, if_exists=if_exists)
        other.kill()
    train_model(data, out, replace(TINY, stage1_epochs=1, stage2_epochs=0))
    assert list(tmp_path.iterdir()) == [out]


def test_a_run_killed_while_its_folder_is_removed_is_finished(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        # Of the three removals the first two find nothing.
        patch.setattr(run_folder, "shutil", Mock(rmtree=Mock(side_effect=[None, None, Stopped])))
        with pytest.raises(Stopped):
            train_model(data, tmp_path / "model", TINY)
    train_model(data, tmp_path / "model", TINY, if_exists="resume")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_that_cant_start_leaves_nothing_behind(data, tmp_path):
    with pytest.raises(ConfigError):
        train_model(data, tmp_path / "model", replace(TINY, num_clusters=1000))
    with pytest.raises(DataError):
        train_model(TrainingSet(["", " "], [["a"], ["b"]]), tmp_path / "model", replace(TINY, num_clusters=1))
    assert list(tmp_path.iterdir()) == []
