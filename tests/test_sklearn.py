"""The scikit-learn classifier: forms of X and y, and scikit-learn's own checks."""

import pickle
from dataclasses import asdict

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.estimator_checks import parametrize_with_checks

from elias_idx.errors import ConfigError, DataError
from elias_idx.sklearn import EliasClassifier
from helpers_training import TINY, topic_texts

# Of TINY, what is another than the default and no parameter of its own.
_OWN = ("preset", "seed", "num_threads")
CONFIG = {name: value for name, value in asdict(TINY).items() if name not in _OWN and value is not None}
TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)
BINARIZER = MultiLabelBinarizer(sparse_output=True)
INDICATOR = BINARIZER.fit_transform(LABELS)
COUNTS = CountVectorizer().fit_transform(TEXTS)

# Which of scikit-learn's checks fail, and why that is meant so.
EXPECTED_FAILURES = {
    "check_classifiers_multilabel_representation_invariance": (
        "a list of lists holds the labels of each row, so an indicator must be an array or a sparse matrix"
    ),
}
# Enough for the checks that ask for accuracy, on the sets of two or three features that they make.
CHECKED = {
    "dim": 8,
    "stage1_epochs": 1,
    "stage2_epochs": 0,
    "batch_size": 4,
    "learning_rate": 0.1,
    "label_learning_rate": 0.2,
}


def classifier(**params):
    return EliasClassifier("fast", num_threads=1, config=CONFIG).set_params(**params)


@pytest.fixture(scope="module")
def of_lists():
    return classifier(threshold=0.3).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def of_indicator():
    return classifier(threshold=0.3).fit(TEXTS, INDICATOR)


# Overflows are what some checks are about.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [EliasClassifier("fast", num_threads=1, config=CHECKED)], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_what_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_best_labels_are_the_models(of_lists):
    found = of_lists.predict_topk(TEXTS, 4)
    expected = of_lists.model_.predict(TEXTS, 4)
    assert found.labels.tolist() == expected.names
    assert found.scores.tolist() == expected.scores
    assert of_lists.predict_topk(TEXTS[:2], 1000).labels.shape == (2, len(of_lists.classes_))


def test_predictions_of_lists_are_lists_of_what_reaches_the_threshold(of_lists):
    every = of_lists.model_.predict(TEXTS, 100)
    expected = [
        [name for name, score in zip(names, scores, strict=True) if score >= 0.3]
        for names, scores in zip(every.names, every.scores, strict=True)
    ]
    assert of_lists.predict(TEXTS) == expected
    assert any(expected)


def test_probabilities_are_the_scores_of_the_k_best(of_lists):
    found = clone(of_lists).set_params(k=3).fit(TEXTS, LABELS).predict_proba(TEXTS)
    assert isinstance(found, sp.csr_matrix)
    assert (np.diff(found.indptr) == 3).all()
    labels, scores = of_lists.predict_topk(TEXTS, 3)
    columns = np.searchsorted(of_lists.classes_, labels.astype(str))
    assert (found[np.arange(len(TEXTS))[:, None], columns].toarray() == scores).all()


def test_forms_of_labels_train_the_same_model(of_lists, of_indicator):
    dense = classifier(threshold=0.3).fit(np.array(TEXTS, object), INDICATOR.toarray())
    assert (of_indicator.predict_proba(TEXTS) != of_lists.predict_proba(TEXTS)).nnz == 0
    assert (dense.predict_proba(TEXTS) == of_lists.predict_proba(TEXTS)).all()
    predicted = of_indicator.predict(TEXTS)
    assert isinstance(predicted, sp.csr_matrix)
    assert (dense.predict(np.array(TEXTS)) == predicted.toarray()).all()
    assert [set(row) for row in BINARIZER.inverse_transform(predicted)] == list(map(set, of_lists.predict(TEXTS)))
    assert (of_indicator.classes_ == np.arange(INDICATOR.shape[1])).all()


def test_columns_that_no_row_has_are_never_predicted():
    wide = sp.hstack([sp.csr_matrix((len(TEXTS), 2)), INDICATOR, sp.csr_matrix((len(TEXTS), 1))])
    fitted = classifier(threshold=0.0).fit(TEXTS, wide)
    assert fitted.predict(TEXTS).shape == wide.shape
    assert set(fitted.predict(TEXTS).indices) == set(wide.tocsr().indices)


def test_sparse_features_and_embeddings(of_lists):
    assert classifier().fit(COUNTS, LABELS).score(COUNTS, LABELS) > 0.8
    embeddings = of_lists.model_.encode(TEXTS)
    dense = EliasClassifier(num_threads=1, config=CHECKED).fit(embeddings, LABELS)
    assert dense.model_.takes_embeddings
    assert dense.score(embeddings, LABELS) > 0.8
    with pytest.raises(ValueError, match="expecting 16 features"):
        dense.predict(embeddings[:, 1:])
    with pytest.raises(DataError, match="takes sparse features"):
        classifier().fit(COUNTS, LABELS).predict(COUNTS.toarray())


@pytest.mark.parametrize(
    ("labels", "names"),
    [([7, 30], ["7", "30"]), ([("a", 1), ("a", 2)], None), ([1, "1"], ["0: 1", "1: 1"])],
    ids=["numbers", "tuples", "mixed"],
)
def test_labels_of_any_kind(labels, names):
    texts = ["cat purrs", "dog barks"] * 10
    y = [[labels[number % 2]] for number in range(20)]
    fitted = classifier(config__num_clusters=1).fit(texts, y)
    assert list(fitted.classes_) == labels
    assert fitted.predict_topk(texts[:2], 1).labels[:, 0].tolist() == labels
    assert fitted.score(texts, y) == 1
    if names is not None:
        assert list(fitted.model_.index.label_names) == names


def test_one_label_a_row():
    groups = np.array([row[1] for row in LABELS])
    fitted = classifier(config__num_clusters=1).fit(TEXTS, groups)
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.sum(1) == pytest.approx(1)
    assert (fitted.predict(TEXTS) == fitted.classes_[probabilities.argmax(1)]).all()
    assert fitted.score(TEXTS, groups) == (fitted.predict(TEXTS) == groups).mean() > 0.8


def test_the_score_is_precision_at_1(of_lists, of_indicator):
    texts, labels = topic_texts(num_topics=12, per_topic=8, seed=1)
    expected = of_lists.model_.evaluate(texts, labels, ks=(1,)).metrics["P@1"] / 100
    assert of_lists.score(texts, labels) == pytest.approx(expected)
    assert of_indicator.score(texts, BINARIZER.transform(labels)) == pytest.approx(expected)
    # A row without labels doesn't count, one with an unknown label does.
    assert of_lists.score([*texts, "the"], [*labels, []]) == pytest.approx(expected)
    assert of_lists.score([*texts, "the"], [*labels, ["new"]]) == pytest.approx(
        expected * len(texts) / (len(texts) + 1)
    )
    weights = np.zeros(len(texts))
    weights[3] = 2
    assert of_lists.score(texts, labels, weights) == of_lists.score(texts[3:4], labels[3:4])
    with pytest.raises(DataError, match="no row has a label"):
        of_lists.score(texts[:2], [[], []])
    with pytest.raises(DataError, match="2 rows, but labels for 3"):
        of_lists.score(texts[:2], labels[:3])


def test_a_pickled_classifier_needs_no_folder(of_lists):
    loaded = pickle.loads(pickle.dumps(of_lists))
    assert of_lists.model_.path is None
    assert loaded.predict(TEXTS) == of_lists.predict(TEXTS)


def test_pipelines_and_grid_searches():
    # A fold may lack some labels.
    pipeline = make_pipeline(CountVectorizer(), classifier(config__num_clusters=4))
    grid = {"eliasclassifier__config__dim": [1, 16], "countvectorizer__ngram_range": [(1, 1)]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(TEXTS, INDICATOR)
    assert search.best_params_["eliasclassifier__config__dim"] == 16
    assert search.best_estimator_[-1].model_.encoder.dim == 16
    # scikit-learn can't tell how to split lists evenly, so the splitter is given.
    lists = GridSearchCV(
        classifier(config__num_clusters=4), {"config__dim": [1, 16]}, cv=KFold(2, shuffle=True, random_state=0)
    )
    assert lists.fit(TEXTS, LABELS).best_params_ == {"config__dim": 16}


def test_settings_are_parameters():
    given = {"dim": 8}
    first = EliasClassifier(config=given)
    second = clone(first).set_params(config__dim=9, config__alpha=5.0, k=2)
    assert given == {"dim": 8}
    assert first.get_params()["config__dim"] == 8
    assert (second.config, second.k) == ({"dim": 9, "alpha": 5.0}, 2)
    with pytest.raises(ValueError, match="config__dimm"):
        first.set_params(config__dimm=8)
    with pytest.raises(ConfigError, match="give the parameter random_state instead"):
        EliasClassifier(config={"seed": 1}).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="unknown setting dimm"):
        EliasClassifier(config={"dimm": 1}).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="must hold settings by name"):
        EliasClassifier(config="fast").fit(TEXTS, LABELS)


def test_random_states_are_seeds(of_lists):
    same = classifier(random_state=np.random.RandomState(5))
    expected = int(np.random.RandomState(5).randint(2**31 - 1))
    assert same.fit(TEXTS, LABELS).model_.settings["seed"] == expected
    assert of_lists.model_.settings["seed"] == 0


def test_progress_is_printed_if_asked_for(capsys):
    classifier(verbose=True).fit(TEXTS, LABELS)
    assert "96 texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        ([["a"], "b"], "row 1 of y must be a list of labels"),
        ([["a"], [["b"]]], "row 1 of y holds something that can't be a label"),
        (np.array([[0, 2], [1, 0]]), "must be an indicator"),
        (sp.csr_matrix([[0, 2], [1, 0]]), "it holds other numbers"),
        (np.array([0.5, 1.5]), "continuous"),
        ([["a"], ["b"], ["c"]], "2 inputs, but labels for 3"),
        ([[], []], "no row with a label"),
    ],
)
def test_labels_that_are_none(y, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(["one", "two"], y)


def test_what_can_not_be_predicted(of_lists):
    with pytest.raises(TypeError, match="put a single text in a list"):
        of_lists.predict("topic1x")
    with pytest.raises(NotFittedError):
        classifier().predict(TEXTS)
    with pytest.raises(DataError, match="takes texts"):
        of_lists.predict(np.zeros((2, 16)))
