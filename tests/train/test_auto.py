"""Settings that follow from the data."""

import itertools
from dataclasses import fields

import numpy as np
import pytest

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError, DataError
from elias_idx.train import train_model
from elias_idx.train.auto import OF_TEXTS, TextStatistics, describe, resolved, resolved_for_sizes
from helpers_training import topic_features, topic_texts

FOLLOWING = [item.name for item in fields(Config) if item.metadata.get("follows")]


def of_texts(texts):
    return resolved(Config(), TrainingSet(texts, [["a"]] * len(texts)))


def made_up(words_per_text, num_texts=300, vocabulary=500, title=False):
    random = np.random.default_rng(0)
    texts = []
    for _ in range(num_texts):
        words = [f"w{number}" for number in random.integers(vocabulary, size=words_per_text)]
        if title:
            words[5] += "\n"
        texts.append(" ".join(words))
    return texts


def test_everything_is_filled_in_and_described():
    config = resolved(Config(), TrainingSet(*topic_texts()))
    assert None not in [getattr(config, name) for name in (*FOLLOWING, "num_clusters", "beta")]
    assert resolved(config, TrainingSet(*topic_texts())) == config
    lines = "\n".join(describe(config, texts=True))
    for name in ("num_clusters", "dim", "stage1_epochs", "train_beam_size", "beam_size", "min_char_texts"):
        assert str(getattr(config, name)) in lines


def test_what_the_settings_say_stays():
    given = {name: (1, 3) if "ngrams" in name else 7 for name in FOLLOWING}
    config = resolved(Config(**given), TrainingSet(*topic_texts()))
    assert {name: getattr(config, name) for name in FOLLOWING} == given


def test_inputs_that_are_no_texts_have_no_n_grams():
    config = resolved(Config(), TrainingSet(*topic_features()))
    assert {name for name in FOLLOWING if getattr(config, name) is None} == set(OF_TEXTS)
    assert not any(line.startswith(("features", "without effect")) for line in describe(config, texts=False))


def test_settings_of_n_grams_have_no_effect_on_other_inputs_and_that_is_said():
    config = resolved(Config(word_ngrams=(1, 1), min_word_texts=5), TrainingSet(*topic_features()))
    assert describe(config, texts=False)[0].endswith(" no texts: word_ngrams, min_word_texts")


@pytest.mark.parametrize(
    ("texts", "chars", "title"),
    [
        (made_up(10), (3, 5), (0, 0)),
        (made_up(10, title=True), (3, 5), (0, 0)),
        (made_up(100), (0, 0), (0, 0)),
        (made_up(100, title=True), (0, 0), (3, 5)),
        # As in languages without spaces, hardly a word comes twice.
        (made_up(10, vocabulary=10**6), (1, 4), (0, 0)),
        (made_up(100, vocabulary=10**6), (1, 4), (0, 0)),
    ],
)
def test_features_follow_from_the_texts(texts, chars, title):
    config = of_texts(texts)
    assert (config.word_ngrams, config.char_ngrams, config.title_char_ngrams) == ((1, 2), chars, title)


def test_more_text_needs_more_frequent_n_grams(monkeypatch):
    least = []
    for num_words in (10**4, 10**7, 10**9):
        monkeypatch.setattr(TextStatistics, "of", lambda _, words=num_words: TextStatistics(words, 200.0, 0.1, 1.0))
        config = of_texts(["a"])
        least.append((config.min_word_texts, config.min_phrase_texts, config.min_char_texts))
    assert least[0] < least[1] < least[2]
    assert all(words <= phrases for words, phrases, _ in least)


def test_statistics_of_texts():
    found = TextStatistics.of(["Title\none two three four", "one line", ""])
    assert found == TextStatistics(7, 7 / 3, 5 / 7, 1 / 3)
    assert TextStatistics.of([""]) == TextStatistics(0, 0.0, 0.0, 0.0)


def test_few_labels_are_all_searched():
    config = resolved_for_sizes(Config(), 45_000, 4_108)
    assert (config.beam_size, config.shortlist_size) == (config.num_clusters, 4_108) == (64, 4_108)


@pytest.mark.parametrize(
    ("num_texts", "num_labels", "epochs"), [(45_000, 4_108, 6), (58_358, 46_881, 4), (81_937, 33_318, 4)]
)
def test_epochs_of_the_measured_data_sets(num_texts, num_labels, epochs):
    assert resolved_for_sizes(Config(), num_texts, num_labels).stage1_epochs == epochs


def test_more_texts_take_about_as_many_steps_or_more():
    steps = []
    for num_texts in (10, 100, 500, 2000, 2600, 10_000, 100_000, 1_000_000):
        config = resolved_for_sizes(Config(), num_texts, 10)
        steps.append(config.stage1_epochs * -(-num_texts // config.batch_size))
    # But for rounding, and where batches become larger.
    assert all(more > 0.5 * less for less, more in itertools.pairwise(steps))


@pytest.mark.parametrize(("num_texts", "batch_size", "epochs"), [(600, 64, 20), (2500, 64, 20), (2600, 256, 40)])
def test_few_texts_are_trained_in_small_batches(num_texts, batch_size, epochs):
    config = resolved_for_sizes(Config(), num_texts, 100)
    assert (config.batch_size, config.stage1_epochs) == (batch_size, epochs)
    assert resolved_for_sizes(Config(batch_size=32), num_texts, 100).batch_size == 32


def test_more_clusters_than_labels_are_refused():
    with pytest.raises(ConfigError, match="num_clusters is 11, but the data has only 10 labels"):
        resolved_for_sizes(Config(num_clusters=11), 50, 10)


def test_tiny_data_train(tmp_path):
    texts = [f"{word} text {number}" for number in range(5) for word in "abcdefghij"]
    labels = [[text[0]] for text in texts]
    model = train_model(TrainingSet(texts, labels), tmp_path / "model", Config(num_threads=1, preset="fast"))
    assert model.index.num_labels == 10
    assert model.evaluate(texts, labels).metrics["P@1"] > 80


def test_one_cluster_has_no_stage_2_unless_it_is_asked_for():
    config = resolved_for_sizes(Config(), 600, 47)
    assert (config.num_clusters, config.stage2_epochs) == (1, 0)
    lines = describe(config, texts=False)
    assert "model: 1 cluster, embeddings of size 256" in lines
    assert (
        lines[1]
        == "training: 20 epochs without stage 2, since one cluster has no adjacency to learn, batches of 64, beam 1, "
        "shortlist 47"
    )
    config = resolved_for_sizes(Config(stage2_epochs=3), 600, 47)
    line = "training: 20 + 3 epochs, batches of 64, beam 1, shortlist 47, 47 labels a cluster"
    assert line in describe(config, texts=False)


def test_texts_without_words_are_refused():
    # All of the sample's lack words, but not all.
    texts = ["?!" for _ in range(4_001)]
    with pytest.raises(DataError, match="4,001 training texts without any word"):
        resolved(Config(), TrainingSet(texts, [["a"]] * len(texts)))
    texts[1] = "word"
    assert resolved(Config(), TrainingSet(texts, [["a"]] * len(texts))).min_word_texts == 1
