"""Labels that leave a model, and labels that join it by their texts."""

from dataclasses import replace

import numpy as np
import pytest

from elias_idx import EVIDENCE, Ensemble, Model
from elias_idx.data import LabelText
from elias_idx.encoders import PrecomputedEncoder
from elias_idx.errors import DataError
from elias_idx.train import TrainingSet, new_labels, parts, train_model
from helpers_training import TINY, topic_texts

HIDDEN = ["t3", "t17", "t30"]


def without(labels, hidden):
    return [[label for label in row if label not in hidden] for row in labels]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with all parts that there can be, of texts some of whose labels were hidden from it."""
    texts, labels = topic_texts()
    names = {f"t{topic}": LabelText(f"topic{topic}x") for topic in range(40)}
    data = TrainingSet(texts, without(labels, HIDDEN)).with_label_texts(names)
    folder = tmp_path_factory.mktemp("labels")
    of_texts = parts.Parts.of(train_model(data, folder / "model", TINY), data, TINY)
    index = of_texts.index(of_texts.ranker(texts, folder / "ranker"), neighbours=True, cooccurrence=True)
    weights = {"log_dense": 1.0, "log_hinge": 0.5, "log_votes": 0.5, "name_overlap": 0.5}
    fused = index.with_fusion([weights.get(column, 0) for column in EVIDENCE], 1.0)
    return replace(of_texts.model, index=fused)


@pytest.fixture(scope="module")
def texts_by_label():
    texts, labels = topic_texts()
    return {name: [text for text, row in zip(texts, labels, strict=True) if name in row][:6] for name in HIDDEN}


@pytest.fixture(scope="module")
def others():
    texts, labels = topic_texts()
    return [text for text, row in zip(texts, labels, strict=True) if not set(row) & set(HIDDEN)]


def recall(model, names, **options):
    """How many of some labels' texts have them among their best three."""
    texts, labels = topic_texts(seed=1)
    found = model.predict(texts, 3, **options).names
    hits = [name in best for best, row in zip(found, labels, strict=True) for name in row if name in names]
    return np.mean(hits)


@pytest.mark.parametrize("given_others", [False, True])
def test_new_labels_are_found_and_old_ones_still_are(model, texts_by_label, others, given_others):
    added = model.add_labels(texts_by_label, other_texts=others if given_others else None)
    assert list(added.index.label_names)[-3:] == HIDDEN
    old = [f"t{topic}" for topic in range(40) if f"t{topic}" not in HIDDEN]
    for fusion in (True, False):
        assert recall(added, HIDDEN, fusion=fusion) > 0.8
        # Of some texts the third best label is a new one now.
        assert recall(added, old, fusion=fusion) > 0.85
    assert model.index.num_labels == added.index.num_labels - 3


def test_all_parts_of_the_index_know_new_labels(model, texts_by_label, others):
    added = model.add_labels(texts_by_label, other_texts=others)
    names = list(added.index.label_names)
    assert added.index.has_ranker
    assert added.index.has_label_texts
    assert added.index.has_neighbours
    assert added.label_counts[-3:].tolist() == [6, 6, 6]
    assert added.num_training_texts == model.num_training_texts + 18
    texts = [texts_by_label[name][0] for name in HIDDEN]
    embeddings, sparse = added.vectorise(texts)
    found = added.index.evidence(embeddings, sparse)
    for query, name in enumerate(HIDDEN):
        rows = slice(found.offsets[query], found.offsets[query + 1])
        (place,) = np.flatnonzero(found.labels[rows] == names.index(name))
        known = dict(zip(EVIDENCE, found.values[rows][place], strict=True))
        assert known["logit"] > -1
        assert known["margin"] > 0
        assert known["nearest"] == pytest.approx(1, abs=1e-4)
        assert known["log_frequency"] == pytest.approx(np.log(7))


def test_names_of_labels_count_as_their_texts(model, texts_by_label):
    names = {name: f"topic{name[1:]}x" for name in HIDDEN}
    texts = [f"{name} and the" for name in names.values()]
    overlaps = []
    for given in (None, names):
        added = model.add_labels(texts_by_label, label_texts=given)
        found = added.index.evidence(*added.vectorise(texts))
        is_new = found.labels >= model.index.num_labels
        overlaps.append(found.values[is_new, EVIDENCE.index("name_overlap")])
    assert not overlaps[0].any()
    assert overlaps[1].max() > 0.3


def test_labels_that_were_added_are_removed_again(model, texts_by_label, tmp_path):
    added = model.add_labels(texts_by_label)
    removed = added.remove_labels(HIDDEN)
    assert list(removed.index.label_names) == list(model.index.label_names)
    assert removed.label_counts.tolist() == model.label_counts.tolist()
    assert added.initial_clusters.tolist() == [*model.initial_clusters, -1, -1, -1]
    assert removed.initial_clusters.tolist() == model.initial_clusters.tolist()
    texts = topic_texts(seed=1)[0]
    assert removed.predict(texts, 3, fusion=False) == model.predict(texts, 3, fusion=False)
    removed.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    loaded.verify()
    assert loaded.predict(texts, 3) == removed.predict(texts, 3)
    without_ids = loaded.remove_labels([0, 2])
    for name in ("label_counts", "initial_clusters"):
        kept = getattr(loaded, name)
        assert getattr(without_ids, name).tolist() == [kept[1], *kept[3:]]


def test_a_text_of_several_labels_or_among_the_others_counts_once(model):
    given = {"one": ["topic3x the", "topic3y of"], "two": ["topic3x the", "topic3x the"]}
    texts = new_labels.NewTexts.of(model, given, ["topic9x", "topic3y of", "topic9x"], None)
    assert texts.num_examples == 2
    assert texts.labels.toarray().tolist() == [[1, 1], [1, 0], [0, 0]]
    np.testing.assert_array_equal(texts.embeddings, model.encode(["topic3x the", "topic3y of", "topic9x"]))
    added = model.add_labels({"one": ["topic3x the", "topic3y of"], "two": ["topic3x the", "topic3x the"]})
    assert added.num_training_texts == model.num_training_texts + 2
    assert added.label_counts[-2:].tolist() == [2, 1]


def test_edges_weigh_what_the_examples_clusters_score(model, texts_by_label):
    texts = new_labels.NewTexts.of(model, texts_by_label, None, None)
    weights = new_labels.edges(model.index, texts, None).toarray()
    beam = model.index.beam(texts.embeddings, beam_size=new_labels.BEAM_SIZE)
    for label in range(3):
        scores = np.zeros(model.index.num_clusters)
        for text in texts.labels[:, label].nonzero()[0]:
            scores[beam.clusters[text]] += beam.scores[text] / 6
        scores[scores < new_labels.MIN_SHARE * scores.max()] = 0
        np.testing.assert_allclose(weights[:, label], scores, rtol=1e-5)


@pytest.mark.parametrize(("dim", "num_negatives"), [(6, 30), (12, 5)])
def test_classifiers_are_the_least_of_their_loss(dim, num_negatives):
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(0.5, 1, (4, dim)), rng.normal(0, 1, (num_negatives, dim))
    weights = new_labels._fitted(positives.astype(np.float32), negatives.astype(np.float32), -2.0)
    pull = new_labels._sigmoid(-(positives @ weights - 2)) @ positives
    push = new_labels._sigmoid(negatives @ weights - 2) @ negatives
    np.testing.assert_allclose(new_labels.RIDGE * weights, pull - push, atol=1e-3)


def test_models_of_embeddings(tmp_path):
    _, labels = topic_texts()
    topics = np.random.default_rng(0).normal(size=(40, 16))
    embeddings = topics[[int(row[0][1:]) for row in labels]] + np.random.default_rng(1).normal(0, 0.2, (480, 16))
    config = replace(TINY, encoder="precomputed", dim=None)
    given = {name: embeddings[[name in row for row in labels]].astype(np.float32) for name in HIDDEN}
    data = TrainingSet(embeddings.astype(np.float32), without(labels, HIDDEN))
    model = train_model(data, tmp_path / "model", config)
    assert isinstance(model.encoder, PrecomputedEncoder)
    found = model.add_labels(given, other_texts=data.inputs[:40]).predict(topics[[3, 17, 30]].astype(np.float32), 2)
    assert [name in best for name, best in zip(HIDDEN, found.names, strict=True)] == [True] * 3
    # Rows that are the same are one example, as texts are.
    same = dict.fromkeys(("one", "two"), given["t3"])
    assert model.add_labels(same).num_training_texts == model.num_training_texts + len(given["t3"])
    with pytest.raises(DataError, match="of one kind, got embeddings and texts"):
        model.add_labels({"one": given["t3"]}, other_texts=["a text"])


def test_ensembles_change_in_every_member(model, texts_by_label, tmp_path):
    texts, labels = topic_texts()
    other = train_model(TrainingSet(texts, without(labels, [*HIDDEN, "t5"])), tmp_path / "other", TINY)
    ensemble = Ensemble([model, other])
    added = ensemble.add_labels(texts_by_label)
    assert added.num_labels == ensemble.num_labels + 3
    assert recall(added, HIDDEN) > 0.8
    removed = added.remove_labels([*HIDDEN, "t5"])
    assert removed.num_labels == other.index.num_labels == removed.num_shared_labels
    assert [member.index.num_labels for member in removed.members] == [removed.num_labels] * 2
    with pytest.raises(DataError, match="has the label 't5'"):
        ensemble.add_labels({"t5": ["topic5x"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no labels to add"),
        ({"t0": ["topic0x"]}, "has the label 't0'"),
        ({"new": []}, "label 'new' has no texts"),
        ({"new": "topic0x"}, "put a single text in a list"),
        ({5: ["topic0x"]}, "labels must be strings, got 5"),
    ],
)
def test_what_cant_be_added(model, given, message):
    with pytest.raises(DataError, match=message):
        model.add_labels(given)


def test_what_else_cant_be_given(model):
    for options, message in [
        ({"other_texts": "some words"}, "other_texts: put a single text in a list"),
        ({"other_texts": iter(["text"])}, "other_texts must be a list of texts, or an array, got list_iterator"),
        ({"label_texts": {"t33": "a name"}}, "label_texts has 't33', which is none of the labels to add"),
    ]:
        with pytest.raises(DataError, match=message):
            model.add_labels({"new": ["topic0x"]}, **options)


def test_labels_to_remove_may_come_one_after_the_other(model):
    with pytest.raises(ValueError, match=str(model.index.num_labels)):
        model.remove_labels([model.index.num_labels])
    removed = model.remove_labels(iter(["t0", "t5"]))
    expected = model.remove_labels(["t0", "t5"])
    np.testing.assert_array_equal(removed.label_counts, expected.label_counts)
    assert list(removed.index.label_names) == list(expected.index.label_names)
