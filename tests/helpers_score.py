"""Models, rows and results for the tests of scoring jobs."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from elias_idx import Index, Model
from elias_idx.train import TrainingSet, train_model
from helpers_index import build
from helpers_training import TINY, topic_texts
from oracle import random_parts

DIM = 12


def save_models(folder):
    """A model of texts in `folder/model`, an index with names in `folder/index`, one without in `folder/plain`."""
    train_model(TrainingSet(*topic_texts()), folder / "model", TINY)
    parts = random_parts(dim=DIM)
    build(parts, label_names=[f"label {label}" for label in range(60)]).save(folder / "index")
    build(parts).save(folder / "plain")
    return folder


def text_table(count=100):
    """Columns id and text."""
    return pa.table({"id": range(count), "text": topic_texts(seed=1)[0][:count]})


def embedding_array(embeddings):
    """Embeddings [N, D] as a fixed-size list array."""
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])


def predicted(path, texts, **options):
    """What the model predicts, as rows of results."""
    found = Model.load(path).predict(texts, **options)
    return [{"labels": names, "scores": scores} for names, scores in zip(found.names, found.scores, strict=True)]


def searched(path, embeddings, **options):
    """What the index finds, as rows of results."""
    index = Index.load(path)
    found = index.search(embeddings, **options)
    rows = []
    for ids, scores in zip(found.labels, found.scores, strict=True):
        there = ids >= 0
        labels = index.names(ids[there]) if index.label_names is not None else ids[there]
        rows.append({"labels": labels.tolist(), "scores": scores[there].tolist()})
    return rows


def results(folder):
    """All rows of a job's folder, in the order of its parts."""
    parts = json.loads((folder / "_manifest.json").read_text())["parts"]
    assert sorted(path.name for path in folder.iterdir()) == ["_manifest.json", *(part["file"] for part in parts)]
    tables = [pq.read_table(folder / part["file"]) for part in parts]
    assert [len(table) for table in tables] == [part["rows"] for part in parts]
    return pa.concat_tables(tables).to_pylist()


def contents(folder):
    """The bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
