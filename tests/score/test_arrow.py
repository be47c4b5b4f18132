"""Scoring Arrow batches, whoever brings them."""

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from elias_idx import Ensemble, Index, Model
from elias_idx.arrow import BadRowError, Scorer
from elias_idx.data import TrainingSet
from elias_idx.errors import ConfigError, DataError
from helpers_score import DIM, embedding_array, predicted, save_models, searched, text_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).standard_normal((20, DIM)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"k": 3, "beam_size": 2}, {"min_score": 0.2}, {"k": 10**6}])
def test_texts_get_what_the_model_predicts(folder, options):
    table = text_table()
    scored = Scorer(folder / "model", keep=["id"], **options)(table)
    assert scored.schema == Scorer(folder / "model", keep=["id"]).schema(table.schema)
    assert scored["id"].to_pylist() == table["id"].to_pylist()
    expected = predicted(folder / "model", table["text"].to_pylist(), **options)
    assert scored.drop_columns("id").to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_strings_may_be_of_any_kind_and_in_chunks(folder, kind):
    table = text_table(9)
    column = pa.chunked_array([table["text"].combine_chunks()[:4], table["text"].combine_chunks()[4:]]).cast(kind)
    assert Scorer(folder / "model")(pa.table({"text": column})) == Scorer(folder / "model")(table)


@pytest.mark.parametrize("name", ["index", "plain"])
@pytest.mark.parametrize(
    "column",
    [
        embedding_array,
        lambda rows: embedding_array(rows.astype(np.float64)),
        lambda rows: pa.array(rows.tolist(), pa.list_(pa.float32())),
        lambda rows: pa.array(rows.tolist(), pa.large_list(pa.float64())),
        # A slice, as batches of a larger table are.
        lambda rows: embedding_array(np.concatenate([np.ones_like(rows), rows]))[len(rows) :],
    ],
)
def test_embeddings_get_what_the_index_finds(folder, embeddings, name, column):
    batch = pa.record_batch({"embedding": column(embeddings)})
    scored = Scorer(folder / name, k=4)(batch)
    assert isinstance(scored, pa.RecordBatch)
    assert scored.to_pylist() == searched(folder / name, embeddings, k=4)


def test_a_model_of_texts_takes_its_own_embeddings(folder):
    model, table = Model.load(folder / "model"), text_table(10)
    column = embedding_array(model.encode(table["text"].to_pylist()))
    assert Scorer(model, embedding_column="e")(pa.table({"e": column})) == Scorer(model, fusion=False)(table)


def test_an_ensemble_is_scored_like_a_model(folder, tmp_path):
    Ensemble([Model.load(folder / "model")] * 2).save(tmp_path / "ensemble")
    found = Scorer(tmp_path / "ensemble", k=2)(text_table(10)).to_pylist()
    assert found == predicted(tmp_path / "ensemble", text_table(10)["text"].to_pylist(), k=2)


def test_probabilities_are_those_that_the_model_predicts(folder):
    texts = text_table(30)["text"].to_pylist()
    labels = [labels[:1] for labels in Model.load(folder / "model").predict(texts, 2).names]
    model = Model.load(folder / "model").calibrate(TrainingSet(texts, labels))
    expected = model.predict(texts, 4, calibrated=True, min_score=0.3)
    found = Scorer(model, k=4, calibrated=True, min_score=0.3)(text_table(30))
    assert found["labels"].to_pylist() == expected.names
    assert found["scores"].to_pylist() == expected.scores
    assert min(map(len, expected.names)) < 4


def test_probabilities_need_a_calibration_and_texts(folder):
    with pytest.raises(ConfigError, match="no calibration"):
        Scorer(folder / "model", calibrated=True).schema(text_table(1).schema)
    for name in ("index", "model"):
        scorer = Scorer(folder / name, embedding_column="embedding", calibrated=True)
        with pytest.raises(ConfigError, match="where embeddings are scored"):
            scorer.schema(pa.schema({"embedding": pa.list_(pa.float32())}))


def test_another_dtype_is_searched(folder, embeddings):
    batch = pa.record_batch({"embedding": embedding_array(embeddings)})
    quantized = Index.load(folder / "index").quantize("int8")
    assert Scorer(folder / "index", dtype="int8")(batch) == Scorer(quantized)(batch)
    assert Scorer(folder / "index", dtype="int8")(batch) != Scorer(folder / "index")(batch)


def test_bad_rows_raise_or_become_null(folder, embeddings):
    rows = embeddings.tolist()
    rows[3], rows[5], rows[7], rows[8] = [0.0], None, [float("nan")] * DIM, [None] * DIM
    batch = pa.record_batch({"id": range(20), "embedding": pa.array(rows, pa.list_(pa.float32()))})
    with pytest.raises(BadRowError, match="row 3 of the batch: 'embedding' has 1 numbers instead of 12") as caught:
        Scorer(folder / "index")(batch)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    for row, message in [(5, "is null"), (7, "not finite"), (8, "null or not finite")]:
        with pytest.raises(BadRowError, match=f"row 0 of the batch: .*{message}"):
            Scorer(folder / "index")(batch[row : row + 1])
    found = Scorer(folder / "index", keep=["id"], on_error="null", k=4)(batch).to_pylist()
    good = np.delete(np.arange(20), [3, 5, 7, 8])
    expected = dict(zip(good.tolist(), searched(folder / "index", embeddings[good], k=4), strict=True))
    assert found == [{"id": row, **expected.get(row, {"labels": None, "scores": None})} for row in range(20)]


def test_bad_texts_raise_or_become_null(folder):
    not_utf8 = pa.array([b"subject3y", b"\xff", None, b""]).cast(pa.string(), safe=False)
    batch = pa.record_batch({"text": not_utf8})
    with pytest.raises(BadRowError, match="row 1 of the batch: 'text' is null or no valid string"):
        Scorer(folder / "model")(batch)
    found = Scorer(folder / "model", on_error="null")(batch)
    assert found["labels"].is_null().to_pylist() == [False, True, True, False]
    assert found.to_pylist()[:1] == predicted(folder / "model", ["subject3y"])


def test_nothing_is_scored_to_nothing(folder):
    assert Scorer(folder / "model")(text_table().slice(0, 0)).num_rows == 0
    only_bad = pa.record_batch({"text": pa.nulls(2, pa.string())})
    assert Scorer(folder / "model", on_error="null")(only_bad)["labels"].null_count == 2


def test_a_scorer_travels_to_other_processes_as_its_path(folder):
    table = text_table(10)
    scorer = Scorer(folder / "model", k=2)
    expected = scorer(table)
    pickled = pickle.dumps(scorer)
    assert len(pickled) < 1000
    script = "import pickle, sys; scorer, table = pickle.load(sys.stdin.buffer); print(scorer(table).to_pylist())"
    found = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps((scorer, table)), capture_output=True, check=True
    )
    assert found.stdout.decode().strip() == str(expected.to_pylist())


def test_batches_are_scored_one_after_the_other(folder):
    table = text_table(10)
    scorer = Scorer(folder / "model")
    assert pa.Table.from_batches(scorer.map(table.to_batches(max_chunksize=3))) == scorer(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "a", "embedding_column": "b"}, "give one of them"),
        ({"keep": ["labels"]}, "rename the input's"),
        ({"keep": "id"}, "must be a list"),
        ({"keep": ["id", "id"]}, "twice"),
        ({"k": 0}, "k must be at least 1"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"min_score": float("nan")}, "NaN"),
        ({"on_error": "skip"}, "'raise' or 'null'"),
    ],
)
def test_options_are_checked_at_once(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        Scorer(folder / "index", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model", {"text_column": "body"}, "no column 'body'; there are id, text, four"),
        ("model", {"text_column": "id"}, "must hold strings, it holds int64"),
        ("model", {"keep": ["lang"]}, "no column 'lang'"),
        ("index", {"embedding_column": "text"}, "must hold lists of numbers"),
        ("index", {"embedding_column": "four"}, "embeddings of 4 numbers, the index takes 12"),
        ("index", {"text_column": "text"}, "takes embeddings, no texts"),
    ],
)
def test_columns_that_do_not_fit_are_named(folder, name, options, message):
    table = text_table(2).append_column("four", embedding_array(np.zeros((2, 4), np.float32)))
    with pytest.raises((ConfigError, DataError), match=message):
        Scorer(folder / name, **options)(table)
