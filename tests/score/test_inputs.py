"""Reading inputs: every format, local and remote, from any row on."""

import gzip
import json
import lzma

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elias_idx.errors import DataError
from elias_idx.score.batches import Position, read_batches
from elias_idx.score.inputs import find_inputs
from elias_idx.score.readers import Wanted, read_blocks, read_schema

TEXTS = Wanted("text", False, ("id",), 4)
ROWS = [{"text": f'a "text"\nof row {row}', "id": row} for row in range(23)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows):
    return (
        "id,text\n" + "".join('{},"{}"\n'.format(row["id"], row["text"].replace('"', '""')) for row in rows)
    ).encode()


WRITERS = {
    "a.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5),
    "a.jsonl": lambda path, rows: path.write_bytes(lines(rows)),
    "a.ndjson.gz": lambda path, rows: path.write_bytes(gzip.compress(lines(rows))),
    "a.json.xz": lambda path, rows: path.write_bytes(lzma.compress(lines(rows))),
    "a.csv": lambda path, rows: path.write_bytes(as_csv(rows)),
    "a.csv.gz": lambda path, rows: path.write_bytes(gzip.compress(as_csv(rows))),
}


def read(files, wanted=TEXTS, start=(0, 0), part_rows=10):
    return list(read_batches(files, wanted, read_schema(files[0], wanted), Position(*start), part_rows))


def rows_of(batches):
    return [row for batch in batches for row in batch.rows.to_pylist()]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_from_any_row_on(tmp_path, name):
    WRITERS[name](tmp_path / name, ROWS)
    (file,) = find_inputs([str(tmp_path / name)])
    expected = [{**row, "id": str(row["id"])} for row in ROWS] if "csv" in name else ROWS
    for start in range(len(ROWS) + 1):
        blocks = list(read_blocks(file, TEXTS, read_schema(file, TEXTS), start))
        assert [row for block in blocks for row in block.rows.to_pylist()] == expected[start:]
        assert [block.first for block in blocks] == [
            start + sum(len(b.rows) for b in blocks[:at]) for at in range(len(blocks))
        ]
        assert all(0 < block.share <= 1 for block in blocks)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_arrays_are_read_from_any_row_on(tmp_path, dtype):
    array = np.arange(46).reshape(23, 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    (file,) = find_inputs([str(tmp_path / "a.npy")])
    wanted = Wanted("embedding", True, (), 4)
    for start in (0, 3, 4, 22, 23):
        found = rows_of(read([file], wanted, (0, start)))
        assert [row["embedding"] for row in found] == array[start:].tolist()


def test_batches_cross_files_but_not_parts(tmp_path):
    for at, count in enumerate([3, 0, 9, 1, 10]):
        WRITERS["a.parquet"](tmp_path / f"{at}.parquet", ROWS[:count] or [])
        if not count:
            pq.write_table(pa.Table.from_pylist(ROWS[:1]).slice(1), tmp_path / f"{at}.parquet")
    files = find_inputs([str(tmp_path)])
    batches = read(files)
    assert [len(batch.rows) for batch in batches] == [4, 4, 2, 4, 4, 2, 3]
    assert rows_of(batches) == [*ROWS[:3], *ROWS[:9], *ROWS[:1], *ROWS[:10]]
    assert [batches[1].where(row) for row in (0, 3)] == [f"{tmp_path}/2.parquet, row {row}" for row in (1, 4)]
    assert batches[0].where(3) == f"{tmp_path}/2.parquet, row 0"
    # From where any part begins, the same batches follow.
    for done in (3, 6):
        assert rows_of(read(files, start=batches[done - 1].end)) == rows_of(batches[done:])
        assert [len(batch.rows) for batch in read(files, start=batches[done - 1].end)] == [
            len(b.rows) for b in batches[done:]
        ]


def test_folders_and_globs_stand_for_their_files_by_name(tmp_path):
    for name in ["b.parquet", "a.jsonl", "sub/c.csv", "notes.txt", "_manifest.json", ".hidden/d.csv", "sub/.e.csv"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    def found(*inputs):
        return [file.name.removeprefix(f"{tmp_path}/") for file in find_inputs(inputs)]

    assert found(str(tmp_path)) == ["a.jsonl", "b.parquet", "sub/c.csv"]
    assert found(f"{tmp_path}/*.parquet", f"{tmp_path}/a.jsonl") == ["b.parquet", "a.jsonl"]
    assert found(f"{tmp_path}/*/?.csv") == ["sub/c.csv"]
    assert [file.name for file in find_inputs([f"file://{tmp_path}/*.[j]sonl"])] == [f"file://{tmp_path}/a.jsonl"]


def test_remote_files_are_read_through_their_file_system():
    remote = fsspec.filesystem("memory")
    remote.pipe("/bucket/day=1/a.jsonl", lines(ROWS[:5]))
    remote.pipe("/bucket/day=2/a.jsonl", lines(ROWS[5:]))
    for given in ("memory://bucket", "memory://bucket/*/a.jsonl", "memory://bucket/day=*/*.jsonl"):
        files = find_inputs([given])
        assert [file.name for file in files] == ["memory://bucket/day=1/a.jsonl", "memory://bucket/day=2/a.jsonl"]
        assert rows_of(read(files)) == ROWS
    assert rows_of(read(find_inputs(["memory://bucket/day=2/a.jsonl"]))) == ROWS[5:]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nothing.parquet", FileNotFoundError, "no file or folder"),
        ("*.parquet", DataError, "no files that can be read"),
        ("notes.txt", DataError, "no format that can be read"),
        ("nonsense://a/b.csv", DataError, "nonsense"),
    ],
)
def test_inputs_that_are_none_are_named(tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(error, match=message):
        find_inputs([given])


def test_types_of_json_are_those_of_the_first_rows(tmp_path):
    rows = [{"text": "a", "id": 1, "x": None}, {"text": "b", "id": 2}]
    (tmp_path / "a.jsonl").write_bytes(lines(rows * 2))
    (tmp_path / "b.jsonl").write_bytes(lines([{"text": "c", "id": 3, "x": "d"}, {"text": "c", "id": 2.5}]))
    files = find_inputs([str(tmp_path)])
    wanted = Wanted("text", False, ("id", "x"), 4)
    assert read_schema(files[0], wanted).types[1:] == [pa.int64(), pa.string()]
    with pytest.raises(DataError, match=r"b.jsonl: row 1: 'id' does not fit int64"):
        read(files, wanted)


def test_texts_and_embeddings_of_json_that_are_none_are_null(tmp_path):
    bad = [{"text": 3}, {"text": "\ud800"}, {}, {"text": "a"}]
    (tmp_path / "a.jsonl").write_bytes(lines(bad))
    files = find_inputs([str(tmp_path)])
    assert rows_of(read(files, Wanted("text", False, (), 4))) == [{"text": text} for text in (None, None, None, "a")]
    rows = [[1, 2.5], "no", [1, "a"], 3, [1, None]]
    (tmp_path / "a.jsonl").write_bytes(lines({"e": row} for row in rows))
    found = rows_of(read(files, Wanted("e", True, (), 9)))
    assert [row["e"] for row in found] == [[1, 2.5], None, None, None, [1, None]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a", "id": 1}\n{"text"', "a.jsonl: row 1: not a JSON object"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS))[:-20], "a.jsonl.gz: can't be unpacked"),
        ("a.csv", b"id,text\n1,a\n2\n", "a.csv: CSV parse error"),
        ("a.csv", b"id,body\n1,a\n", "a.csv: there is no column 'text'; there are id, body"),
        ("a.csv", b"", "a.csv: Empty CSV"),
        ("a.jsonl", b'{"id": 1}\n{"id": 2, "body": "a"}\n', "a.jsonl: there is no column 'text'; there are id, body"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: "),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(find_inputs([str(tmp_path / name)]))


def npy(*shape):
    """The bytes of an array that says to be of the shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.float32), r"expected floats \[N, D\]"),
        (np.zeros((3, 2), np.int64), r"expected floats \[N, D\]"),
        (np.asfortranarray(np.zeros((3, 2))), ".*stored by columns"),
        (b"\x93NUMPY", "not a .npy array"),
        (b"", "not a .npy array"),
        (npy(-1, 2), r"expected floats \[N, D\]"),
        (npy(2, -1), r"expected floats \[N, D\]"),
    ],
)
def test_arrays_that_are_none_are_named(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array) if isinstance(array, np.ndarray) else (tmp_path / "a.npy").write_bytes(array)
    with pytest.raises(DataError, match=f"a.npy: {message}"):
        read(find_inputs([str(tmp_path)]), Wanted("embedding", True, (), 4))


def test_an_array_that_ends_early_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"a.npy: the file ends before row 8"):
        read(find_inputs([str(tmp_path)]), Wanted("embedding", True, (), 4))
