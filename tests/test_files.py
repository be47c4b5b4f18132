"""Files that claim more than they have: refused before memory is taken for it."""

import json

import pytest

from elias_idx import Model
from elias_idx.errors import FormatError
from elias_idx.files import load_tensors, map_tensors
from elias_idx.score.manifest import FORMAT, FORMAT_VERSION, NAME, Manifest
from test_golden import MODEL

TERA = 10**12


def tensor_file(shape, end, header_length=None):
    header = json.dumps({"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return (header_length or len(header)).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        tensor_file([TERA], 4 * TERA),
        tensor_file([TERA], 0),
        tensor_file([2**62, 4], 0),
        tensor_file([1], 4, header_length=TERA),
        tensor_file([1], 4, header_length=2**64 - 1),
        b"",
    ],
)
@pytest.mark.parametrize("read", [load_tensors, map_tensors])
def test_tensors_that_are_only_claimed(tmp_path, read, content):
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"t\.safetensors is damaged"):
        read(path)


@pytest.mark.parametrize(
    "name",
    ["labels.safetensors", "encoder/bag.safetensors", "encoder/features.safetensors", "index/label_bias.safetensors"],
)
def test_tensors_of_a_model_that_are_only_claimed(tmp_path, name):
    for file in MODEL.rglob("*.*"):
        (tmp_path / file.relative_to(MODEL)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.relative_to(MODEL)).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes(tensor_file([TERA], 4 * TERA))
    with pytest.raises(FormatError, match=name):
        Model.load(tmp_path)


def test_a_description_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"model\.json is damaged"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "x"},
        {"rows": -1},
        {"null_rows": 2**63},
        {"end": [0, 1, 2]},
        {"end": [TERA, True]},
        {"end": 5},
        {"file": "../part-00000.parquet"},
        {"file": 5},
        {"unknown": 1},
    ],
)
def test_parts_of_a_job_that_can_t_be(tmp_path, change):
    part = {"file": "part-00000.parquet", "rows": 1, "null_rows": 0, "sha256": "", "end": [0, TERA]}
    job = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": "m",
        "fingerprint": "",
        "options": {},
        "inputs": [],
    }
    manifest = {**job, "finished": False, "parts": [part]}
    (tmp_path / NAME).write_text(json.dumps(manifest))
    assert Manifest.load(tmp_path).end == (0, TERA)
    (tmp_path / NAME).write_text(json.dumps({**manifest, "parts": [part | change]}))
    with pytest.raises(FormatError, match="is damaged"):
        Manifest.load(tmp_path)


def test_a_job_s_manifest_that_is_nested_too_deeply(tmp_path):
    (tmp_path / NAME).write_text("[" * 100_000)
    with pytest.raises(FormatError, match="is damaged"):
        Manifest.load(tmp_path)
