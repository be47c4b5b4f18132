"""Models as folders: saving, loading, predicting, evaluating."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import elias_idx.predictor
from elias_idx import Index, Model
from elias_idx.data import labels_by_name
from elias_idx.errors import DataError, FormatError
from elias_idx.files import load_tensors, save_tensors
from elias_idx.train import TrainingSet, train_model
from helpers_training import TINY, topic_texts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    train_model(TrainingSet(*topic_texts()), path, TINY)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_predictions_are_the_search_of_the_encoded_texts(saved):
    model = Model.load(saved)
    texts = topic_texts(seed=1)[0][:20]
    found = model.predict(texts, 4)
    direct = model.index.search(model.encode(texts), 4)
    assert found.names == model.index.names(direct.labels).tolist()
    assert np.array(found.scores, np.float32) == pytest.approx(direct.scores)
    assert model.encode(texts).dtype == np.float32


def test_predictions_have_no_padding(saved):
    model = Model.load(saved)
    found = model.predict(["topic1x"], 1000, beam_size=1)
    assert 0 < len(found.names[0]) == len(found.scores[0]) < 1000
    assert model.predict([], 3) == ([], [])


def test_the_index_opens_without_the_rest(saved):
    assert Index.load(saved / "index").num_labels == Model.load(saved).index.num_labels


def test_a_single_string_is_an_error(saved):
    with pytest.raises(TypeError, match="put a single text in a list"):
        Model.load(saved).predict("topic1x", 3)


def test_evaluation_counts_unseen_labels_and_texts_without_labels(saved):
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    plain = model.evaluate(texts, labels)
    assert plain.num_texts == len(texts)
    assert plain.unseen_labels == []
    assert plain.num_without_labels == 0
    with_unseen = model.evaluate([*texts, "nothing"], [*([*row, "never seen"] for row in labels), []])
    assert with_unseen.unseen_labels == ["never seen"]
    assert with_unseen.num_without_labels == 1
    # One more label a text that nothing finds: recall drops by a third.
    assert with_unseen.metrics["R@10"] == pytest.approx(plain.metrics["R@10"] * 2 / 3)
    assert with_unseen.metrics["P@1"] == plain.metrics["P@1"]
    assert with_unseen.metrics["PSP@1"] < plain.metrics["PSP@1"]


def test_excluded_pairs_count_neither_as_found_nor_as_missed(saved, monkeypatch):
    monkeypatch.setattr(elias_idx.predictor, "_TEXTS_AT_ONCE", 100)
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    matrix, names = labels_by_name(labels)
    # Of every other text, what is predicted first; of one, all labels.
    best = model.predict(texts, 3).names
    out = np.zeros(matrix.shape, bool)
    for number in range(0, len(texts), 2):
        out[number, names.index(best[number][0])] = True
    out[3] = True
    found = model.evaluate(texts, matrix, label_names=names, excluded=sp.csr_matrix(out), ks=(1,), recall_ks=(2,))
    first = [row[number % 2 == 0] for number, row in enumerate(best)]
    relevant = [set(row) - {best[number][0]} if number % 2 == 0 else set(row) for number, row in enumerate(labels)]
    relevant[3] = set()
    assert found.num_without_labels == sum(not row for row in relevant) > 0
    # Texts that are left without labels count as zeros.
    hits = [name in row for name, row in zip(first, relevant, strict=True)]
    assert found.metrics["P@1"] == pytest.approx(100 * np.mean(hits))
    assert sum(group["P@1"] for group in found.groups.values()) == pytest.approx(found.metrics["P@1"])
    with pytest.raises(ValueError, match="a matrix of the same shape"):
        model.evaluate(texts, labels, excluded=sp.csr_matrix(out))


def test_a_matrix_of_labels_evaluates_like_their_names(saved):
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    matrix, names = labels_by_name([[*row, "never seen"] for row in labels])
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = model.evaluate(texts, matrix[:, order], label_names=[names[number] for number in order])
    assert shuffled == model.evaluate(texts, [[*row, "never seen"] for row in labels])
    assert sum(group["uses"] for group in shuffled.groups.values()) == matrix.nnz


def test_texts_without_labels_are_left_out_or_count_as_zeros_beside_excluded_pairs(saved):
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    matrix, names = labels_by_name([*labels, []])
    texts.append("nothing")
    plain = model.evaluate(texts, matrix, label_names=names)
    none_excluded = model.evaluate(texts, matrix, label_names=names, excluded=sp.csr_matrix(matrix.shape))
    assert none_excluded.num_without_labels == plain.num_without_labels == 1
    # One text loses all labels, beside the one that has none.
    out = sp.csr_matrix(np.arange(len(texts))[:, None] == 0) @ sp.csr_matrix(np.ones((1, len(names))))
    emptied = model.evaluate(texts, matrix, label_names=names, excluded=out)
    rest = model.evaluate(texts[1:-1], matrix[1:-1], label_names=names)
    assert emptied.num_without_labels == 2
    for name in plain.metrics:
        averaged = name.split("@")[0] in ("P", "nDCG", "R")
        share = len(labels) / len(texts) if averaged else 1
        assert none_excluded.metrics[name] == pytest.approx(plain.metrics[name] * share), name
        share = (len(labels) - 1) / len(texts) if averaged else 1
        if not name.startswith("macro"):
            assert emptied.metrics[name] == pytest.approx(rest.metrics[name] * share), name
    with pytest.raises(DataError, match="no text has a label that isn't excluded"):
        model.evaluate(texts, matrix, label_names=names, excluded=matrix)


def test_a_matrix_is_taken_in_any_form_and_checked(saved):
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    matrix, names = labels_by_name(labels)
    expected = model.evaluate(texts, matrix, label_names=names, excluded=sp.csr_matrix(matrix.shape))
    rows, columns = matrix.nonzero()
    doubled = sp.csr_matrix(
        (np.ones(2 * matrix.nnz), np.repeat(columns, 2), 2 * matrix.indptr.astype(np.int64)), shape=matrix.shape
    )
    zero = sp.coo_matrix((np.zeros(matrix.nnz), (rows, columns)), shape=matrix.shape)
    assert model.evaluate(texts, doubled, label_names=names, excluded=zero) == expected
    with pytest.raises(DataError, match="columns, but there are 3 label names"):
        model.evaluate(texts, matrix, label_names=names[:3])
    with pytest.raises(DataError, match="must be unique"):
        model.evaluate(texts, matrix, label_names=[names[1], *names[1:]])


def test_cutoffs_beyond_all_labels_take_no_memory(saved):
    model = Model.load(saved)
    texts, labels = topic_texts(seed=1)
    far = model.evaluate(texts, labels, ks=(45, 10**9), recall_ks=(45, 10**20)).metrics
    assert far["PSnDCG@1000000000"] == pytest.approx(far["PSnDCG@45"])
    assert far[f"R@{10**20}"] == pytest.approx(far["R@45"])


def test_a_model_without_label_names_is_explained(saved):
    model = Model.load(saved)
    index = model.index
    adjacency = (index.adjacency.indptr, index.adjacency.indices, index.adjacency.data)
    nameless = Index.build(index.cluster_weights, index.cluster_bias, adjacency, index.label_weights, index.label_bias)
    model = Model(model.encoder, nameless, model.label_counts, model.num_training_texts)
    for call in (lambda: model.predict(["topic1x"], 3), lambda: model.evaluate(["topic1x"], [["t1"]])):
        with pytest.raises(DataError, match="has no label names"):
            call()


def test_a_loaded_model_saves_again_and_predicts_the_same(saved, tmp_path):
    model = Model.load(saved)
    model.save(tmp_path / "again")
    again = Model.load(tmp_path / "again")
    texts = topic_texts(seed=1)[0][:10]
    assert again.predict(texts, 5) == model.predict(texts, 5)
    assert again.settings == model.settings
    assert again.num_training_texts == model.num_training_texts
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "again")
    model.save(tmp_path / "again", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["again"]


def test_a_quantized_model_is_the_same_but_for_its_index(saved, tmp_path):
    model = Model.load(saved)
    texts = topic_texts(seed=1)[0][:10]
    in_memory = model.quantize("int8", screen=False)
    written = model.quantize("int8", screen=False, path=tmp_path / "small")
    assert in_memory.path is None
    assert written.path == tmp_path / "small"
    for quantized in (in_memory, written):
        quantized.verify()
        assert (quantized.index.dtype, quantized.index.screen) == ("int8", False)
        assert quantized.settings == model.settings
        np.testing.assert_array_equal(quantized.label_counts, model.label_counts)
    assert in_memory.predict(texts, 5) == written.predict(texts, 5)
    with pytest.raises(FileExistsError):
        model.quantize("int8", path=tmp_path / "small")
    with pytest.raises(ValueError, match="an int8 index can't become float16"):
        written.quantize("float16", path=tmp_path / "wide")
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_a_model_can_be_saved_over_itself(copy):
    model = Model.load(copy)
    texts = topic_texts(seed=1)[0][:10]
    before = model.predict(texts, 5)
    model.save(copy, overwrite=True)
    assert model.predict(texts, 5) == before == Model.load(copy).predict(texts, 5)


@pytest.mark.parametrize("name", ["notes.txt", "index/notes.txt", "encoder/notes.txt", "index/more/notes.json"])
def test_files_that_are_no_part_of_a_model_are_never_lost(copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("precious")
    with pytest.raises(FileExistsError, match=r"notes\.\w+ besides its model"):
        Model.load(copy).save(copy, overwrite=True)
    assert (copy / name).read_text() == "precious"


def test_verify_finds_a_changed_bit_in_any_file(copy):
    Model.load(copy).verify()
    for path in [*sorted(copy.rglob("*.safetensors")), copy / "encoder" / "features.json"]:
        content = path.read_bytes()
        for position in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises((FormatError, DataError)):
                Model.load(copy).verify()
        path.write_bytes(content)
    Model.load(copy).verify()


@pytest.mark.parametrize("name", ["encoder/bag.safetensors", "labels.safetensors"])
def test_verify_says_which_file_is_missing(copy, name):
    model = Model.load(copy)
    (copy / name).unlink()
    with pytest.raises(FormatError, match=name.rpartition("/")[2]):
        model.verify()


@pytest.mark.parametrize("length", ["NaN", "Infinity", "0", "-1", '"8"', "true", "null"])
def test_an_encoder_s_length_is_a_positive_number(copy, length):
    (copy / "encoder" / "bag.json").write_text(f'{{"length": {length}}}')
    with pytest.raises(FormatError, match=r"bag\.json: length must be a positive number"):
        Model.load(copy)


@pytest.mark.parametrize("change", [lambda idf: idf[:-1], lambda idf: idf[None], lambda idf: idf * np.nan])
def test_features_whose_files_dont_fit_together(copy, change):
    path = copy / "encoder" / "features.safetensors"
    tensors = load_tensors(path)
    save_tensors(path, {**tensors, "idf": change(tensors["idf"])})
    with pytest.raises(FormatError, match="idf must be finite numbers of shape"):
        Model.load(copy)


def test_evaluation_follows_the_index_s_order_of_names(saved):
    model = Model.load(saved)
    index = model.index
    order = np.random.default_rng(0).permutation(index.num_labels)
    position = np.argsort(order)
    shuffled = Index.build(
        index.cluster_weights,
        index.cluster_bias,
        (index.adjacency.indptr, position[index.adjacency.indices], index.adjacency.data),
        index.label_weights[order],
        index.label_bias[order],
        alpha=index.alpha,
        label_names=index.names(order).tolist(),
    )
    same = Model(model.encoder, shuffled, model.label_counts[order], model.num_training_texts)
    texts, labels = topic_texts(seed=1)
    assert same.evaluate(texts, labels).metrics == pytest.approx(model.evaluate(texts, labels).metrics)


def test_evaluation_without_cutoffs_is_an_error(saved):
    model = Model.load(saved)
    with pytest.raises(ValueError, match="both empty"):
        model.evaluate(["x"], [["t1"]], ks=(), recall_ks=())
    assert model.evaluate(["topic1x"], [["t1"]], ks=(1,), recall_ks=()).metrics.keys() >= {"P@1", "nDCG@1"}


def test_labels_that_are_no_lists_one_a_text_are_an_error(saved):
    model = Model.load(saved)
    for labels in ([], [["t1"], ["t2"]]):
        with pytest.raises(ValueError, match=f"there are 1 texts, but labels for {len(labels)}"):
            model.evaluate(["topic1x"], labels)
    with pytest.raises(ValueError, match="labels must be a list of strings, got the string 't1'"):
        model.evaluate(["topic1x"], ["t1"])
    with pytest.raises(DataError, match="text 1 must be a string, got int"):
        model.predict(["topic1x", 3])


def test_k_beyond_all_labels_takes_no_memory(saved):
    found = Model.load(saved).predict(["topic1x"], 2**70)
    assert 0 < len(found.names[0]) <= 45


@pytest.mark.parametrize(("k", "error"), [(None, TypeError), ("3", TypeError), (2.0, TypeError), (0, ValueError)])
def test_k_must_be_an_integer_of_at_least_one(saved, k, error):
    with pytest.raises(error, match="k must be"):
        Model.load(saved).predict(["topic1x"], k)


def test_an_array_is_not_for_a_model_of_texts(saved):
    with pytest.raises(DataError, match="takes texts, got an array"):
        Model.load(saved).predict(np.ones((2, 16)), 3)


def test_others_may_read_a_saved_model(saved):
    umask = os.umask(0)
    os.umask(umask)
    for path in [saved, *saved.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


@pytest.mark.parametrize("limit", [1000, 20_000, 60_000])
def test_a_full_disk_leaves_nothing_behind(saved, tmp_path, limit):
    """A limit on the size of files stands for the disk: writing beyond it fails in the same place."""
    script = (
        "import resource, sys\n"
        "from elias_idx import Model\n"
        "model = Model.load(sys.argv[1])\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n"
        "    model.save(sys.argv[2])\n"
        "except OSError as error:\n"
        "    print('refused', error)\n"
    )
    arguments = [sys.executable, "-c", script, str(saved), str(tmp_path / "model")]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("refused")
    assert list(tmp_path.iterdir()) == []


def test_nothing_there_and_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model at"):
        Model.load(tmp_path / "none")
    with pytest.raises(FormatError, match="is no model"):
        Model.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="is no model"):
        Model.load(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "model format 2, this elias_idx reads 1: upgrade"),
        ({"num_training_texts": 0}, "num_training_texts is 0"),
        ({"format": "other"}, "does not describe an elias_idx model"),
        ({"encoder": "quantum"}, "unknown encoder 'quantum'"),
        ({"required_features": ["ranker"]}, r"needs \['ranker'\], which this elias_idx does not know"),
    ],
)
def test_foreign_and_newer_models_are_refused_by_name(copy, change, message):
    description = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(description | change))
    with pytest.raises(FormatError, match=message):
        Model.load(copy)


def test_every_damaged_byte_of_a_description_is_noticed(copy):
    path = copy / "model.json"
    whole = path.read_bytes()
    Model.load(copy).verify()
    for at in range(0, len(whole), 7):
        for bit in (0x01, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(FormatError):
                Model.load(copy).verify()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_description(copy):
    (copy / "model.json").unlink()
    os.mkfifo(copy / "model.json")
    with pytest.raises(FormatError, match=r"model\.json is no regular file"):
        Model.load(copy)


@pytest.mark.parametrize(
    "name",
    [
        "labels.safetensors",
        "encoder/bag.json",
        "encoder/bag.safetensors",
        "encoder/features.json",
        "index/index.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_models_are_explained(copy, name, damage):
    path = copy / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError):
        Model.load(copy)


@pytest.mark.parametrize(
    "damage",
    [lambda ids: ids[:-1], lambda ids: ids.astype(np.int64), lambda ids: ids + 1000, lambda ids: ids - 2],
)
def test_initial_clusters_that_are_none_of_the_index(copy, damage):
    labels = load_tensors(copy / "labels.safetensors")
    save_tensors(copy / "labels.safetensors", labels | {"initial_clusters": damage(labels["initial_clusters"])})
    with pytest.raises(FormatError, match="initial_clusters are no clusters"):
        Model.load(copy)


def test_initial_clusters_that_are_none_of_the_index_are_not_saved(saved, tmp_path):
    model = Model.load(saved)
    wrong = replace(model, initial_clusters=model.initial_clusters[:-1])
    with pytest.raises(ValueError, match="initial_clusters must be"):
        wrong.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_encoder_whose_files_dont_fit_together(copy):
    tensors = load_tensors(copy / "encoder" / "bag.safetensors")
    for change in ({"embeddings": tensors["embeddings"][:-3]}, {"gain": tensors["gain"] * np.nan}):
        save_tensors(copy / "encoder" / "bag.safetensors", {**tensors, **change})
        with pytest.raises(FormatError, match="must be finite numbers of shape"):
            Model.load(copy)


def test_a_model_json_that_is_no_json(copy):
    (copy / "model.json").write_text("{")
    with pytest.raises(FormatError, match=r"model\.json is damaged"):
        Model.load(copy)
