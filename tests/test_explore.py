"""The page's contents as HTML: escaped, and what the model says. `test_explore_page.py` looks at it in a browser."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from elias_idx import Ensemble, Model
from elias_idx.cli.explore import explore
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError, DataError, FormatError
from elias_idx.explore.clusters import hanging, related, top_labels
from elias_idx.explore.explorer import NUM_LABELS, Explorer
from elias_idx.explore.render import escaped
from elias_idx.model import load_single
from elias_idx.train import train_model
from helpers_index import build
from helpers_training import TINY, topic_features, topic_texts
from oracle import random_parts

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)
EVIL = "<img src=x onerror=\"document.title='owned'\">${document.title='owned'}{{value}}`'\\"


class Contents(HTMLParser):
    """What a browser makes of HTML: its text and its elements."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(source)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    evil = [[EVIL if name == "t0" else name for name in row] for row in LABELS]
    return train_model(TrainingSet(TEXTS * 4, evil * 4), path, replace(TINY, preset="full", num_candidates=10))


@pytest.fixture(scope="module")
def explorer(fused):
    return Explorer(fused)


@pytest.mark.parametrize("text", [EVIL, "</script>", "&amp;", "a & b", "ü\0\n", "{{#each x}}", "${1+1}", ""])
def test_escaped_text_is_shown_as_it_is(text):
    source = f'<p title="{escaped(text)}">{escaped(text)}</p>'
    contents = Contents(source)
    assert contents.text == text
    assert contents.tags == [("p", {"title": text})]
    assert not set("${}`\\") & set(escaped(text))


def test_predictions_are_those_of_the_model(explorer, fused):
    contents = Contents(explorer.predictions(TEXTS[20]))
    (names,), (scores,) = fused.predict([TEXTS[20]], NUM_LABELS)
    rows = [int(attrs["data-label"]) for _, attrs in contents.tags if "data-label" in attrs]
    assert fused.index.names(rows).tolist() == names
    shown = "".join(f"{name}{score:.3f}" for name, score in zip(names, scores, strict=True))
    assert contents.text == shown
    widths = [attrs["style"] for _, attrs in contents.tags if "style" in attrs]
    assert widths == [f"width:{100 * score:.1f}%" for score in scores]


def test_nothing_and_empty_texts(explorer):
    assert "Type a text" in explorer.predictions("  ")
    assert "data-label" in explorer.predictions("nothing known")


def test_why_adds_up(explorer, fused):
    label = int(fused.index._core.find_labels(fused.predict(TEXTS[20:21], 1).names[0])[0])
    source = explorer.why(TEXTS[20], label)
    (explanation,) = fused.explain(TEXTS[20], [label])
    contents = Contents(source)
    assert contents.tags[0] == ("div", {"class": "ei"})
    adds = re.findall(r"([+-][\d.]+)</td></tr>", source.partition("Dense model")[0])
    assert sum(map(float, adds)) == pytest.approx(explanation.fused.logit, abs=0.02)
    assert f"as a probability {explanation.score:.4f}" in contents.text
    best = explanation.dense.best_path
    assert ("button", {"type": "button", "class": "ei-link", "data-cluster": str(best.cluster)}) in contents.tags
    assert f"cluster {best.cluster}" in contents.text


def test_names_can_not_run_anything(explorer, fused):
    label = int(fused.index._core.find_labels([EVIL])[0])
    text = TEXTS[0]
    cluster = int(fused.index.clusters(label).clusters[0])
    views = [explorer.predictions(text), explorer.why(text, label), explorer.label(label), explorer.named(EVIL)]
    views += [explorer.cluster(cluster), explorer.named(f"{EVIL}!")]
    for source in views:
        contents = Contents(source)
        assert "onerror" in contents.text
        assert {tag for tag, _ in contents.tags} <= {
            "div", "h3", "p", "b", "table", "thead", "tbody", "tr", "th", "td", "button", "span",
        }  # fmt: skip
        assert "${" not in source
        assert "{{" not in source


def test_labels_and_clusters(explorer, fused):
    index = fused.index
    label = 5
    assert f"hangs on {len(index.clusters(label).clusters)} cluster" in explorer.label(label)
    assert explorer.named(index.label_names[label]) == explorer.label(label)
    assert "No label is called missing." in explorer.named("missing")
    for number in (-1, index.num_clusters):
        assert "There are clusters 0 to 7" in explorer.cluster(number)
    assert Contents(explorer.largest()).text.count("cluster ") == index.num_clusters


def test_where_labels_began(fused):
    index, label = fused.index, 5
    # In a cluster that doesn't lead to it any more, like all others.
    home = next(number for number in range(8) if number not in index.clusters(label).clusters)
    initial = np.full(index.num_labels, -1, np.int32)
    initial[label] = home
    shown = Explorer(replace(fused, initial_clusters=initial))
    began = f'began in <button type="button" class="ei-link" data-cluster="{home}">cluster {home}</button>'
    assert began in shown.label(label)
    assert "1 label began in it" in Contents(shown.cluster(home)).text
    assert "Where labels that began here hang too" in shown.cluster(home)
    spread = Contents(shown.spread()).text
    assert "Of 1 label, 1 hang on other clusters than the first, 1 of them more than on it." in spread
    assert f"{index.names(label)}cluster {home}0.0000cluster {index.clusters(label).clusters[0]}" in spread
    # Nothing is said of what isn't known.
    other = Explorer(replace(fused, initial_clusters=None))
    for source in (shown.label(label - 1), other.label(label), *map(other.cluster, range(8))):
        assert "began" not in source
    assert "this model doesn't tell" in other.spread()
    assert "began in" not in other.spread()


def test_of_equal_weights_the_first_cluster_is_the_best():
    edges = np.zeros((4, 3), np.float32)
    edges[[1, 3], 0] = edges[[0, 2], 1] = edges[2, 2] = 1
    parts = replace(random_parts(3, num_clusters=4, num_labels=3), adjacency=edges)
    found = hanging(build(parts), np.array([3, 2, 2], np.int32))
    assert found.best.tolist() == [1, 0, 2]
    assert found.others.tolist() == [1, 0, -1]
    assert not found.has_moved.any()


def test_a_dense_model(fused):
    dense = Explorer(
        replace(
            fused, index=fused.index.with_evidence(num_features=1, num_candidates=1, label_counts=fused.label_counts)
        )
    )
    shown = Contents(dense.why(TEXTS[20], 0)).text
    assert "Fusion" not in shown
    assert "classifier" in shown


def test_models_without_texts(tmp_path):
    embeddings = np.eye(8, dtype=np.float32)
    config = replace(TINY, encoder="precomputed", dim=None, num_clusters=2)
    model = train_model(TrainingSet(embeddings, [["a"], ["b"]] * 4), tmp_path / "embeddings", config)
    with pytest.raises(ConfigError, match="takes embeddings"):
        Explorer(model)
    features, labels = topic_features()
    with pytest.raises(DataError, match="features"):
        Explorer(train_model(TrainingSet(features, labels), tmp_path / "features", TINY))


def test_without_gradio_the_command_says_what_to_install(fused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "elias_idx.explore.page", raising=False)
    result = CliRunner().invoke(explore, [str(fused.path)])
    assert result.exit_code == 1
    assert "pip install 'elias_idx[explore]'" in result.output


# What clusters hold.


@pytest.fixture(scope="module")
def parts():
    return random_parts(3, num_clusters=9, num_labels=60, labels_per_cluster=14)


def test_clusters_of_labels(parts):
    edges = parts.adjacency
    counts = (edges > 0).sum(0)
    # Labels began anywhere: in their best cluster, in another that leads to them, or in one that no longer does.
    initial = np.random.default_rng(0).integers(-1, 9, 60).astype(np.int32)
    found = hanging(build(parts), initial)
    homes, known = initial, initial >= 0
    elsewhere = edges.copy()
    elsewhere[homes[known], np.flatnonzero(known)] = 0
    assert np.diff(found.indptr).tolist() == counts.tolist()
    assert found.homes.tolist() == homes.tolist()
    assert found.home_weights.tolist() == np.where(known, edges[homes, np.arange(60)], 0).tolist()
    assert found.others.tolist() == np.where(elsewhere.any(0), elsewhere.argmax(0), -1).tolist()
    assert found.other_weights.tolist() == elsewhere.max(0).tolist()
    assert found.best.tolist() == np.where(counts > 0, edges.argmax(0), -1).tolist()
    assert found.by_number().tolist() == np.bincount(np.minimum(counts, 10), minlength=11).tolist()
    divided = sorted(np.flatnonzero(known & elsewhere.any(0)), key=lambda label: (-elsewhere[:, label].max(), label))
    expected = [
        (label, homes[label], found.home_weights[label], found.others[label], found.other_weights[label])
        for label in divided
    ]
    assert found.most_divided(7) == expected[:7]
    assert found.most_divided(100) == expected
    assert np.flatnonzero(found.is_divided).tolist() == sorted(divided)
    assert found.has_moved.tolist() == (known & (elsewhere.max(0) > found.home_weights)).tolist()


def test_clusters_that_share_labels(parts):
    initial = np.random.default_rng(0).integers(-1, 9, 60).astype(np.int32)
    found = hanging(build(parts), initial)
    for cluster in range(9):
        labels = found.of_home(cluster)
        numbers = {other: (parts.adjacency[other, labels] > 0).sum() for other in range(9) if other != cluster}
        expected = sorted((other for other in numbers if numbers[other]), key=lambda other: (-numbers[other], other))
        others, shared = found.sharing(cluster, 3)
        assert others.tolist() == expected[:3]
        assert shared.tolist() == [numbers[other] for other in expected[:3]]


def test_labels_with_one_cluster_or_none():
    parts = random_parts(3, num_clusters=4, num_labels=12)
    edges = np.repeat(np.eye(4, dtype=np.float32), 3, axis=1)
    edges[3] = 0
    found = hanging(build(replace(parts, adjacency=edges)), None)
    assert found.best.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1, -1]
    assert found.homes.tolist() == [-1] * 12
    assert found.by_number().tolist() == [3, 9, *[0] * 9]
    assert len(found.most_divided(5)) == 0
    assert [len(part) for cluster in range(4) for part in found.sharing(cluster, 5)] == [0] * 8


def test_related_labels_are_the_nearest_classifiers(parts):
    index = build(parts)
    cluster = int(np.argmax((parts.adjacency > 0).sum(1)))
    own = np.flatnonzero(parts.adjacency[cluster])
    label, weights = int(own[0]), parts.label_weights
    found = related(index, cluster, label, 4)
    cosines = weights @ weights[label] / np.linalg.norm(weights, axis=1) / np.linalg.norm(weights[label])
    expected = sorted(set(own) - {label}, key=lambda other: -cosines[other])[:4]
    assert found.labels.tolist() == expected
    assert found.cosines == pytest.approx(cosines[expected], rel=1e-5)


def test_top_labels_by_weight_then_frequency(parts):
    index, counts = build(parts), np.arange(60)[::-1] % 7
    labels, weights = top_labels(index, 2, counts, 5)
    row = parts.adjacency[2]
    expected = sorted(np.flatnonzero(row), key=lambda label: (-row[label], -counts[label]))[:5]
    assert labels.tolist() == expected
    assert weights.tolist() == row[expected].tolist()


def test_models_are_single_ones(fused, tmp_path):
    Ensemble([fused, fused]).save(tmp_path / "ensemble")
    with pytest.raises(FormatError, match="an ensemble, not a single model"):
        load_single(tmp_path / "ensemble")
    assert isinstance(Model.load(tmp_path / "ensemble"), Ensemble)
