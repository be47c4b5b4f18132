"""What is tried on arbitrary bytes: a reader gives a result or a DataError that names the file, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from elias_idx.data.jsonl import read_jsonl
from elias_idx.data.reading import load_embeddings
from elias_idx.data.xmc import read_bag_of_words, read_pairs, read_raw_text
from elias_idx.errors import DataError
from elias_idx.score.inputs import find_inputs
from elias_idx.score.readers import Wanted, read_blocks, read_schema

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"

_FIELDS = ("text", "labels")


def _score(path: Path) -> Iterable[Any]:
    (file,) = find_inputs([str(path)])
    embedding = path.suffix == ".npy"
    keep = () if embedding else ("id",)
    wanted = Wanted(column="embedding" if embedding else "text", is_embedding=embedding, keep=keep, rows=4)
    return list(read_blocks(file, wanted, read_schema(file, wanted)))


# By name: what the file is called, and what reads it.
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "bag_of_words": ("rows.txt", lambda path: read_bag_of_words(path, _FIELDS)),
    "embeddings": ("rows.npy", load_embeddings),
    "jsonl": ("rows.jsonl", lambda path: read_jsonl(path, _FIELDS, "group")),
    "packed": ("rows.jsonl.gz", lambda path: read_jsonl(path, _FIELDS)),
    "pairs": ("pairs.txt", lambda path: read_pairs(path, (5, 7))),
    "raw_text": ("trn.json", lambda path: read_raw_text(path, _FIELDS, "group")),
    "score_csv": ("rows.csv", _score),
    "score_jsonl": ("rows.jsonl", _score),
    "score_npy": ("rows.npy", _score),
}


def read(name: str, content: bytes, folder: Path) -> None:
    """Lets a reader read a file of these bytes.

    Raises:
        Exception: it failed otherwise than by a DataError that names the file.
    """
    file_name, reader = READERS[name]
    path = folder / file_name
    path.write_bytes(content)
    try:
        reader(path)
    except DataError as error:
        if str(path) not in str(error):
            raise AssertionError(f"the message lacks the file: {error}") from error
