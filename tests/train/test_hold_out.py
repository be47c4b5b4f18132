"""What is held out: enough texts, never a part of what belongs together, a label's only text if others are too few."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from elias_idx.train import TrainingSet
from elias_idx.train.hold_out import hold_out
from helpers_training import topic_features, topic_texts


def made_up(num_texts, num_labels=20, **more):
    rng = np.random.default_rng(num_texts)
    texts = [f"text {number}" for number in range(num_texts)]
    return TrainingSet(texts, [[f"l{label}" for label in rng.choice(num_labels, 2)] for _ in texts], **more)


@pytest.mark.parametrize(("num_texts", "expected"), [(300, 60), (3000, 500), (20_000, 1000), (101_000, 5000)])
def test_so_many_texts_are_held_out(num_texts, expected):
    split = hold_out(made_up(num_texts), seed=0)
    assert len(split.held_out) == expected
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(num_texts))


def test_another_seed_holds_out_others():
    data = made_up(1000)
    assert np.array_equal(hold_out(data, 3).held_out, hold_out(data, 3).held_out)
    assert not np.array_equal(hold_out(data, 3).held_out, hold_out(data, 4).held_out)


def test_few_texts_are_not_enough():
    split = hold_out(made_up(200), seed=0)
    assert len(split.held_out) == 40
    assert not split.is_enough


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_groups_repeated_texts_and_labels_are_respected(draws):
    """Against what the choice promises, whatever the data are like."""
    num_texts = draws.draw(st.integers(260, 400))
    rng = np.random.default_rng(draws.draw(st.integers(0, 1000)))
    texts = [f"text {number}" for number in rng.integers(0, draws.draw(st.sampled_from([30, 1000])), num_texts)]
    groups = [None if rng.random() < 0.3 else int(rng.integers(0, 150)) for _ in texts]
    labels = [[f"l{label}" for label in rng.choice(100, rng.integers(0, 3))] for _ in texts]
    data = TrainingSet(texts, labels, groups=groups)
    split = hold_out(data, seed=1)
    held_out = set(split.held_out.tolist())
    together = {}
    for row in range(num_texts):
        for key in (("text", texts[row]), ("group", groups[row])):
            if key != ("group", None):
                assert together.setdefault(key, row in held_out) == (row in held_out)
    assert len(held_out) <= round(0.2 * num_texts)
    if (lost := data.labels[split.rest].getnnz(0) == 0).any():
        # Something of each unit stays known.
        assert not lost[data.labels[split.held_out].indices].all()


def test_a_label_s_only_texts_stay_in_training():
    # Half of the texts have a label of their own.
    labels = [["common", f"own{number}"] if number % 2 else ["common", "even"] for number in range(600)]
    split = hold_out(TrainingSet([f"text {number}" for number in range(600)], labels), seed=0)
    assert len(split.held_out) == 120
    assert (split.held_out % 2 == 0).all()
    # Of labels that no other text has, a text could say nothing.
    of_their_own = [[f"own{number}"] for number in range(600)]
    split = hold_out(TrainingSet([f"text {number}" for number in range(600)], of_their_own), seed=0)
    assert not len(split.held_out)


def test_labels_only_texts_go_where_others_are_too_few():
    # Every text has a label of its own, and shares another with many.
    labels = [[f"common{number % 10}", f"own{number}"] for number in range(600)]
    data = TrainingSet([f"text {number}" for number in range(600)], labels)
    split = hold_out(data, seed=0)
    assert len(split.held_out) == 120
    known = data.labels[split.rest].getnnz(0) > 0
    assert data.labels[split.held_out][:, known].getnnz(1).all()
    # Of many texts some may be spared, of which there are enough.
    some = TrainingSet(
        [f"text {number}" for number in range(20_000)],
        [["common", "own" + str(number)] if number >= 700 else ["common"] for number in range(20_000)],
    )
    assert (hold_out(some, seed=0).held_out < 700).all()


def test_groups_whose_labels_are_their_own_go_as_wholes():
    labels = [["common", f"of{number // 5}"] for number in range(1000)]
    groups = [number // 5 for number in range(1000)]
    data = TrainingSet([f"text {number}" for number in range(1000)], labels, groups=groups)
    split = hold_out(data, seed=0)
    assert len(split.held_out) == 200
    assert set(np.unique(split.held_out // 5, return_counts=True)[1]) == {5}


def test_texts_without_labels_stay_in_training():
    labels = [["a"] if number % 2 else [] for number in range(600)]
    split = hold_out(TrainingSet([f"text {number}" for number in range(600)], labels), seed=0)
    assert (split.held_out % 2 == 1).all()


def test_a_group_larger_than_what_is_held_out_stays_in_training():
    data = made_up(1000, groups=["large"] * 900 + [None] * 100)
    assert (hold_out(data, seed=0).held_out >= 900).all()


def test_same_rows_of_features_stay_together():
    features, labels = topic_features()
    twice = sp.vstack([features, features], format="csr")
    split = hold_out(TrainingSet(twice, labels + labels), seed=0)
    count = features.shape[0]
    assert np.array_equal(split.held_out[split.held_out < count], split.held_out[split.held_out >= count] - count)


def test_a_subset_keeps_columns_and_groups():
    texts, labels = topic_texts()
    data = TrainingSet(texts, labels, groups=[number // 12 for number in range(len(texts))])
    part = data.subset(np.array([0, 13, 5]))
    assert part.inputs == [texts[0], texts[13], texts[5]]
    assert part.label_names == data.label_names
    assert (part.labels != data.labels[[0, 13, 5]]).nnz == 0
    assert part.groups[0] == part.groups[2] != part.groups[1]
    assert part.fingerprint() != TrainingSet(part.inputs, part.labels, label_names=part.label_names).fingerprint()


def test_only_texts_like_those_to_come_are_held_out():
    data = made_up(1000)
    among = np.arange(700, 1000)
    split = hold_out(data, 0, among)
    assert set(split.held_out) <= set(among)
    assert len(split.held_out) > 290
    # A text that also stands among the others stays with them.
    again = TrainingSet([*data.inputs[:999], data.inputs[0]], data.labels, label_names=data.label_names)
    assert 999 not in hold_out(again, 0, among).held_out
