"""Settings: defaults, files, and what is refused."""

import pytest

from elias_idx.config import Config
from elias_idx.errors import ConfigError


def test_toml_settings_and_overrides(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("dim = 64\nlearning_rate = 1\nchar_ngrams = [2, 4]\n", encoding="utf-8")
    config = Config.from_toml(path, {"dim": 32})
    assert (config.dim, config.learning_rate, config.char_ngrams) == (32, 1.0, (2, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": 3}, "unknown setting dims; known are: .*dim"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 2.5}, "dim must be a whole number, got 2.5"),
        ({"dim": True}, "dim must be a whole number"),
        ({"dim": "64"}, "dim must be a whole number"),
        ({"dropout": 1.0}, "dropout must be at most 0.999"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"alpha": 0}, "alpha must be at least"),
        ({"word_ngrams": [1, 2, 3]}, "word_ngrams must be two whole numbers"),
        ({"word_ngrams": (1, 101)}, "word_ngrams must be at most 100, got 101"),
        ({"word_ngrams": (3, 2)}, "word_ngrams must be a shortest and a longest"),
        ({"word_ngrams": (0, 2)}, "word_ngrams must be a shortest and a longest"),
        ({f"{field}_ngrams": (0, 0) for field in ("word", "char", "title_word", "title_char")}, "no features"),
        ({"label_dtype": "bfloat16", "device": "cuda"}, "leave it out for device 'cuda'"),
        ({"cluster_by": "dense"}, "cluster_by is dense, but encoder bag has no such features"),
        ({"encoder": "bert"}, "encoder must be one of bag, transformer"),
        ({"adjacency_start": "zeros"}, "adjacency_start must be one of"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"num_clusters": "8"}, "num_clusters must be a whole number or left out"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_mapping(settings)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("dim = = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        Config.from_toml(path)


def test_clusters_and_beta_follow_from_the_number_of_labels():
    config = Config().with_clusters(1000, default=16)
    assert (config.num_clusters, config.beta) == (16, pytest.approx(0.75 * 1000 / 16))
    assert Config(num_clusters=4, beta=9.0).with_clusters(1000, default=16) == Config(num_clusters=4, beta=9.0)
    with pytest.raises(ConfigError, match="only 3 labels"):
        Config(num_clusters=4).with_clusters(3, default=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "transformer"}, "transformer must name"),
        ({"encoder": "bag+transformer"}, "transformer must name"),
        ({"transformer": "bert"}, "encoder is bag, which has no transformer: leave out transformer"),
        ({"encoder": "precomputed", "frozen": True, "max_tokens": 64}, "leave out max_tokens, frozen"),
    ],
)
def test_settings_of_transformers_and_the_encoder_must_agree(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_mapping(settings)
