"""Ensembles of models: averaging, folders, the command line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import CliRunner

from elias_idx import EVIDENCE, Ensemble, Model
from elias_idx.cli.commands import cli
from elias_idx.config import Config
from elias_idx.data import write_rows
from elias_idx.encoders import BagEncoder
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.features import TextFeatures
from elias_idx.train import TrainingSet, train_model
from helpers_training import TINY, topic_features, topic_texts

TEXTS, LABELS = topic_texts(seed=1)


def train(path, texts, labels, **changes):
    train_model(TrainingSet(texts, labels), path, replace(TINY, **changes))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models of the same texts, of different encoders; one of other texts, with other labels."""
    folder = tmp_path_factory.mktemp("models")
    texts, labels = topic_texts()
    train(folder / "a", texts, labels)
    train(folder / "b", texts, labels, seed=1, num_clusters=5, char_ngrams=(0, 0))
    # "t3" is called otherwise here, and comes elsewhere in the order.
    train(folder / "c", texts, [["a3" if label == "t3" else label for label in row] for row in labels], seed=2)
    Ensemble([Model.load(folder / name) for name in "abc"]).save(folder / "abc")
    return folder


@pytest.fixture(scope="module")
def members(folder):
    return [Model.load(folder / name) for name in "abc"]


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder / "abc", tmp_path / "copy")


def averaged(members, texts, k, **options):
    """What an ensemble must predict: for each text the means of the members' scores, by name."""
    sums = [{} for _ in texts]
    for member in members:
        found = member.predict(texts, max(k, 20) if member.index.has_fusion else 200, **options)
        for row, names, scores in zip(sums, found.names, found.scores, strict=True):
            for name, score in zip(names, scores, strict=True):
                row[name] = row.get(name, np.float32(0)) + np.float32(score)
    means = [{name: total / np.float32(len(members)) for name, total in row.items()} for row in sums]
    return [dict(sorted(row.items(), key=lambda item: -item[1])[:k]) for row in means]


def as_dicts(found):
    return [dict(zip(names, scores, strict=True)) for names, scores in zip(*found, strict=True)]


def test_predictions_are_the_means_of_the_members(folder, members):
    loaded = Model.load(folder / "abc")
    assert isinstance(loaded, Ensemble)
    expected = averaged(members, TEXTS, 46)
    for ensemble in (loaded, Ensemble(members)):
        # 46 labels that all know, and two names of a 47th one.
        assert as_dicts(ensemble.predict(TEXTS, 100)) == averaged(members, TEXTS, 100)
        assert [list(row.values()) for row in as_dicts(ensemble.predict(TEXTS, 46))] == [
            list(row.values()) for row in expected
        ]
    allowed = {"filter": ["t1", "t3", "group0"], "beam_size": 3, "shortlist_size": 12, "num_threads": 1}
    found = as_dicts(loaded.predict(TEXTS[:60], 2, **allowed))
    per_member = [[name for name in allowed["filter"] if name in member.index.label_names] for member in members]
    sums = [
        averaged([member], TEXTS[:60], 9, **{**allowed, "filter": names})
        for member, names in zip(members, per_member, strict=True)
    ]
    for row, *parts in zip(found, *sums, strict=True):
        for name, score in row.items():
            assert score == pytest.approx(sum(part.get(name, 0) for part in parts) / 3, rel=1e-6)


def test_evaluation_uses_the_means(members):
    ensemble = Ensemble(members)
    result = ensemble.evaluate(TEXTS, LABELS)
    best = [next(iter(row)) for row in averaged(members, TEXTS, 1)]
    hits = np.mean([name in row for name, row in zip(best, LABELS, strict=True)])
    assert result.metrics["P@1"] == pytest.approx(100 * hits)
    assert result.unseen_labels == []
    with_unseen = ensemble.evaluate([*TEXTS, "nothing"], [*LABELS, ["never seen"]])
    assert with_unseen.unseen_labels == ["never seen"]


def test_counts_are_those_of_labels_by_name(members):
    ensemble = Ensemble(members)
    names = ensemble.predict(["topic1x"], 100, filter=["t3", "a3"]).names[0]
    assert sorted(names) == ["a3", "t3"]
    counts = dict(zip(ensemble._index.label_names, ensemble.label_counts.tolist(), strict=True))
    assert counts == {name: 96 if name.startswith("group") else 12 for name in counts}
    assert (ensemble.num_labels, ensemble.num_shared_labels) == (46, 44)
    assert ensemble.num_training_texts == 480


def test_members_with_different_encoders_have_no_common_index(members):
    ensemble = Ensemble(members)
    for use in (lambda: ensemble.index, lambda: ensemble.encode(TEXTS)):
        with pytest.raises(ConfigError, match=r"different encoders.*use predict\(texts\)"):
            use()


def test_members_with_the_same_saved_encoder_share_it(folder, tmp_path, members, monkeypatch):
    index = members[2].index
    same = replace(members[0], index=index, label_counts=members[2].label_counts)
    same.save(tmp_path / "same")
    ensemble = Ensemble([Model.load(folder / "a"), Model.load(tmp_path / "same")])
    ensemble.save(tmp_path / "ensemble")
    loaded = Model.load(tmp_path / "ensemble")
    calls = count_calls(monkeypatch, BagEncoder, "encode")
    predicted = loaded.predict(TEXTS, 5)
    assert len(calls) == 1
    found = loaded.index.search(loaded.encode(TEXTS), 5)
    assert predicted.names == loaded.index.names(found.labels).tolist()
    assert np.array(predicted.scores, np.float32) == pytest.approx(found.scores)


def count_calls(monkeypatch, owner, name):
    calls, method = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: calls.append(given) or method(*given, **named))
    return calls


def test_texts_become_features_once_for_members_with_the_same_n_grams(folder, members, monkeypatch):
    ensemble = Model.load(folder / "abc")
    calls = count_calls(monkeypatch, TextFeatures, "transform")
    predicted = ensemble.predict(TEXTS, 5)
    # The second member has words alone.
    assert len(calls) == 2
    assert predicted == Ensemble([replace(member, checksums={}) for member in members]).predict(TEXTS, 5)
    assert len(calls) == 5
    with pytest.raises(TypeError, match="put a single text in a list"):
        ensemble.predict("topic1x")


def test_embeddings_are_searched_by_all_members(tmp_path):
    features, labels = topic_features()
    embeddings = features.toarray().astype(np.float32)
    config = Config(**{**vars(TINY), "encoder": "precomputed"})
    for seed in range(2):
        train_model(TrainingSet(embeddings, labels), tmp_path / str(seed), replace(config, seed=seed))
    ensemble = Ensemble([Model.load(tmp_path / str(seed)) for seed in range(2)])
    assert ensemble.takes_embeddings
    assert ensemble.index.dim == embeddings.shape[1]
    found = ensemble.index.search(embeddings, 3)
    assert ensemble.predict(embeddings, 3).names == ensemble.index.names(found.labels).tolist()


def with_fusion(model):
    """The model, its scores mixed with those of a random ranker."""
    draw = np.random.default_rng(0)
    num_features = model.features.num_features
    ranker = sp.random(model.index.num_labels, num_features, 0.3, "csr", np.float32, draw)
    index = model.index.with_evidence(
        num_features=num_features, num_candidates=20, label_counts=model.label_counts,
        ranker=(ranker, np.zeros(model.index.num_labels)),
    )  # fmt: skip
    weights = [0.2 if column in ("log_dense", "margin") else 0.0 for column in EVIDENCE]
    return replace(model, index=index.with_fusion(weights))


def test_members_with_fusion_count_with_its_scores(tmp_path, members, monkeypatch):
    fused = with_fusion(members[0])
    other = with_fusion(replace(members[2], encoder=replace(members[2].encoder, length=4.0)))
    Ensemble([fused, other, members[1]]).save(tmp_path / "ensemble")
    ensemble = Model.load(tmp_path / "ensemble")
    calls = count_calls(monkeypatch, TextFeatures, "transform")
    found = as_dicts(ensemble.predict(TEXTS, 5))
    assert len(calls) == 2  # the third member has words alone
    # Fusion scores the 20 best labels of the dense model.
    sums = [averaged([fused], TEXTS, 20), averaged([other], TEXTS, 20), averaged([members[1]], TEXTS, 46)]
    for row, *parts in zip(found, *sums, strict=True):
        means = {name: sum(part.get(name, 0) for part in parts) / 3 for part in parts for name in part}
        assert list(row.values()) == pytest.approx(sorted(means.values(), reverse=True)[:5], rel=1e-6)
        assert row == pytest.approx({name: means[name] for name in row}, rel=1e-6)
    dense = Ensemble([members[0], replace(other, index=members[2].index), members[1]])
    assert ensemble.predict(TEXTS, 5, fusion=False) == dense.predict(TEXTS, 5)


def test_an_index_of_members_with_fusion_takes_what_vectorise_gives(members):
    same = replace(members[2], encoder=members[0].encoder)
    ensemble = Ensemble([same, with_fusion(members[0])])
    embeddings, sparse = ensemble.vectorise(TEXTS)
    found = ensemble.index.search(embeddings, 5, sparse=sparse)
    assert ensemble.index.names(found.labels).tolist() == ensemble.predict(TEXTS, 5).names
    assert ensemble.vectorise(TEXTS, fusion=False)[1] is None


def test_what_makes_no_ensemble_is_explained(folder, members):
    with pytest.raises(ConfigError, match="at least 2 members, got 1"):
        Ensemble(members[:1])
    with pytest.raises(ConfigError, match="member 1 is an ensemble itself"):
        Ensemble([members[0], Model.load(folder / "abc")])
    with pytest.raises(TypeError, match="member 0 is of type str"):
        Ensemble(["a", "b"])
    embeddings = replace(members[0], encoder=type("Encoder", (), {"kind": "precomputed"})())
    with pytest.raises(ConfigError, match="these take texts, embeddings"):
        Ensemble([members[0], embeddings])


def test_models_without_a_common_label_make_no_ensemble(tmp_path):
    texts, labels = topic_texts()
    data = TrainingSet(texts, labels), TrainingSet(texts, [[f"other {name}" for name in row] for row in labels])
    models = [train_model(part, tmp_path / str(number), TINY) for number, part in enumerate(data)]
    with pytest.raises(DataError, match="no label in common"):
        Ensemble(models)
    # Few in common are said.
    some = TrainingSet(texts, [[row[1], f"other {row[0]}"] for row in labels])
    train_model(some, tmp_path / "some", TINY)
    result = CliRunner().invoke(
        cli, ["ensemble", *(str(tmp_path / name) for name in ("0", "some")), "--out", str(tmp_path / "e")]
    )
    assert result.exit_code == 0
    assert "warning: the models have only 5 labels in common" in result.output


def test_models_and_ensembles_describe_themselves_in_a_line(members):
    for made in (members[0], Ensemble(members)):
        assert len(repr(made)) <= 120
        assert "\n" not in repr(made)
        assert f"{len(made.label_counts)} labels" in repr(made)


def test_members_without_label_names_are_explained(members):
    index = members[0].index
    nameless = type(index).build(
        index.cluster_weights, index.cluster_bias, index.adjacency, index.label_weights, index.label_bias
    )
    with pytest.raises(DataError, match="no label names"):
        Ensemble([members[0], replace(members[0], index=nameless)])


def test_a_loaded_ensemble_saves_again_also_over_itself(copy, tmp_path):
    before = Model.load(copy).predict(TEXTS, 5)
    Model.load(copy).save(tmp_path / "again")
    ensemble = Model.load(tmp_path / "again", mmap=False)
    ensemble.verify()
    assert ensemble.predict(TEXTS, 5) == before
    with pytest.raises(FileExistsError, match="overwrite it"):
        ensemble.save(copy)
    ensemble.save(copy, overwrite=True)
    assert Model.load(copy).predict(TEXTS, 5) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "copy"]


def test_a_model_takes_the_place_of_an_ensemble_unless_something_else_is_there(copy, folder):
    (copy / "members" / "0" / "notes.txt").write_text("mine")
    model = Model.load(folder / "a")
    with pytest.raises(FileExistsError, match=r"members/0/notes\.txt besides"):
        model.save(copy, overwrite=True)
    (copy / "members" / "0" / "notes.txt").unlink()
    model.save(copy, overwrite=True)
    assert isinstance(Model.load(copy), Model)


def test_quantized_members(copy, tmp_path):
    loaded = Model.load(copy)
    in_memory = loaded.quantize("bfloat16", screen=False)
    saved = loaded.quantize("bfloat16", screen=False, path=tmp_path / "small")
    assert saved.path == tmp_path / "small"
    assert {member.index.dtype for member in (*in_memory.members, *saved.members)} == {"bfloat16"}
    assert in_memory.predict(TEXTS, 3) == saved.predict(TEXTS, 3)


def test_verify_finds_damage_in_any_member(copy):
    ensemble = Model.load(copy, mmap=False)
    ensemble.verify()
    path = copy / "members" / "1" / "encoder" / "features.json"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"members/1/encoder/features\.json is damaged"):
        ensemble.verify()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("members/1/model.json", None, r"damaged.*members/1/model\.json"),
        ("members/2/labels.safetensors", None, r"members/2: the model is damaged.*labels\.safetensors"),
        ("members/0/model.json", "{}", r"members/0/model\.json is damaged: its checksum"),
        ("members/1/index/index.json", "{", r"members/1/index"),
    ],
)
def test_missing_and_damaged_members_are_named(copy, name, content, message):
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(content)
    with pytest.raises(FormatError, match=message):
        Model.load(copy)


@pytest.mark.parametrize("checksums", [None, [], {}, {"members/0/model.json": "?"}, {"../x": "?"}, {"encoder/x": 1}])
def test_a_description_without_its_members_is_damaged(copy, checksums):
    description = json.loads((copy / "model.json").read_text())
    description["sha256"] = checksums
    (copy / "model.json").write_text(json.dumps(description))
    with pytest.raises(FormatError, match="damaged"):
        Model.load(copy)


def test_an_ensemble_within_an_ensemble_is_refused(copy, tmp_path):
    inner = shutil.copytree(copy, tmp_path / "inner")
    shutil.rmtree(copy / "members" / "1")
    inner.rename(copy / "members" / "1")
    description = json.loads((copy / "model.json").read_text())
    from elias_idx.model import sha256, with_checksum

    description["sha256"]["members/1/model.json"] = sha256(copy / "members" / "1" / "model.json")
    del description["checksum"]
    (copy / "model.json").write_text(with_checksum(description))
    with pytest.raises(FormatError, match="members/1 is an ensemble, not a single model"):
        Model.load(copy)


def run(*arguments, expect=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result


def test_the_command_line_joins_evaluates_and_describes(folder, tmp_path):
    out = tmp_path / "made"
    result = run("ensemble", folder / "a", folder / "b", folder / "c", "--out", out)
    assert "46, of which 2 are not known to all models" in result.stderr
    assert "different: it predicts from texts" in result.stderr
    assert Model.load(out).predict(TEXTS, 4) == Model.load(folder / "abc").predict(TEXTS, 4)
    write_rows(tmp_path / "test.jsonl", ({"text": t, "labels": row} for t, row in zip(TEXTS, LABELS, strict=True)))
    metrics = json.loads(run("evaluate", out, tmp_path / "test.jsonl", "--json").stdout)["metrics"]
    assert metrics == Model.load(out).evaluate(TEXTS, LABELS).metrics
    (tmp_path / "names.txt").write_text("t1\nt2\n")
    run("predict", out, tmp_path / "test.jsonl", "--out", tmp_path / "found.jsonl", "--allow", tmp_path / "names.txt")
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {name for row in rows for name in row["labels"]} == {"t1", "t2"}
    described = run("info", out).output
    assert "3 models" in described
    assert described.count("trained on  480 rows") == 3
    run("quantize", out, "--dtype", "int8", "--out", tmp_path / "small")
    assert Model.load(tmp_path / "small").members[2].index.dtype == "int8"


def test_what_the_command_line_cant_join_is_explained(folder, tmp_path):
    out = ("--out", tmp_path / "made")
    assert "exists" in run("ensemble", folder / "a", folder / "b", "--out", folder / "c", expect=1).stderr
    assert "at least 2 members" in run("ensemble", folder / "a", *out, expect=1).stderr
    refused = run("ensemble", folder / "a", folder / "abc", *out, expect=1).stderr
    assert "is an ensemble, not a single model" in refused
    assert "there is no model" in run("ensemble", folder / "a", tmp_path / "no", *out, expect=1).stderr
    assert list(tmp_path.iterdir()) == []
