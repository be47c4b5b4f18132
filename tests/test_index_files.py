"""Saving and loading: whole or not at all, and errors of the real kind."""

import errno
import hashlib
import itertools
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from elias_idx import EliasIdxError, FormatError, Index, _core
from helpers_index import build, names_for
from oracle import Parts, random_parts


@pytest.fixture
def saved(index: Index, tmp_path: Path) -> Path:
    index.save(tmp_path / "index")
    return tmp_path / "index"


def results(index: Index, parts: Parts) -> list[list[int]]:
    labels: list[list[int]] = index.search(parts.queries).labels.tolist()
    return labels


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_saved_is_loaded(index: Index, parts: Parts, saved: Path, mmap: bool) -> None:
    loaded = Index.load(str(saved), mmap=mmap)
    assert loaded.path == saved
    assert results(loaded, parts) == results(index, parts)
    assert list(loaded.label_names or []) == names_for(parts)
    loaded.verify()
    loaded.save(saved.parent / "again")
    for file in saved.iterdir():
        assert file.read_bytes() == (saved.parent / "again" / file.name).read_bytes()


def test_the_files_are_readable_without_this_library(saved: Path, parts: Parts) -> None:
    raw = (saved / "index.json").read_bytes()
    assert raw[:15] == b'{\n  "sha256": "'
    assert hashlib.sha256(raw[:15] + b"0" * 64 + raw[79:]).hexdigest().encode() == raw[15:79]
    manifest = json.loads(raw)
    assert list(manifest)[:4] == ["sha256", "format", "format_version", "required_features"]
    assert manifest["format"] == "elias_idx"
    assert manifest["format_version"] == 1
    assert manifest["required_features"] == []
    assert manifest["dims"] == {"num_labels": 60, "num_clusters": 9, "dim": 12, "label_dim": 12}
    assert manifest["defaults"] == {"alpha": 10.0, "beam_size": 20, "shortlist_size": 2000}
    assert {file.name for file in saved.iterdir()} == {
        "index.json",
        *(entry["file"] for entry in manifest["tensors"].values()),
    }
    tensors = {}
    for name, entry in manifest["tensors"].items():
        data = (saved / entry["file"]).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0
        ((only, tensors[name]),) = safetensors.numpy.load(data).items()
        assert only == name
        assert list(tensors[name].shape) == entry["shape"]
    np.testing.assert_array_equal(tensors["cluster_weights"], parts.cluster_weights)
    np.testing.assert_array_equal(tensors["label_bias"], parts.label_bias)
    offsets = tensors["label_name_offsets"].tolist()
    blob = tensors["label_name_bytes"].tobytes()
    assert [blob[a:b].decode() for a, b in itertools.pairwise(offsets)] == names_for(parts)


def test_nothing_is_overwritten_unasked(index: Index, parts: Parts, saved: Path) -> None:
    with pytest.raises(FileExistsError, match="overwrite") as caught:
        build(random_parts(5)).save(saved)
    assert caught.value.filename == str(saved)
    assert caught.value.errno == errno.EEXIST
    assert results(Index.load(saved), parts) == results(index, parts)


def test_a_mapped_index_works_on_after_its_folder_is_overwritten(index: Index, parts: Parts, saved: Path) -> None:
    mapped, expected = Index.load(saved), results(index, parts)
    weights = mapped.label_weights
    other = random_parts(5)
    build(other).save(saved, overwrite=True)
    assert results(mapped, parts) == expected
    np.testing.assert_array_equal(weights, parts.label_weights)
    mapped.verify()
    assert results(Index.load(saved), other) == results(build(other), other)
    mapped.save(saved, overwrite=True)
    assert results(Index.load(saved), parts) == expected
    shutil.rmtree(saved)
    assert results(mapped, parts) == expected
    assert list(saved.parent.iterdir()) == []


def test_only_an_index_is_overwritten(index: Index, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    for name in ("empty", "photos"):
        with pytest.raises(FileExistsError, match=r"is not an elias_idx index: it has no index\.json"):
            index.save(tmp_path / name, overwrite=True)
    index.save(tmp_path / "index")
    (tmp_path / "index" / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r'holds "notes\.txt", which is no part of an index'):
        index.save(tmp_path / "index", overwrite=True)
    assert (tmp_path / "index" / "notes.txt").read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(NotADirectoryError, match="is a file"):
        index.save(tmp_path / "file", overwrite=True)
    with pytest.raises(FileExistsError):
        index.save(tmp_path / "file")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"meow"


def test_paths_that_can_not_be_saved_to(index: Index, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        index.save(tmp_path / "missing" / "index")
    assert caught.value.filename == str(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        index.save(tmp_path / "file" / "index")
    with pytest.raises(ValueError, match=r"must end in a folder.s name"):
        index.save(tmp_path / "missing" / "..")
    with pytest.raises(ValueError, match=r"NUL|null"):
        index.save(str(tmp_path / "a\0b"))
    with pytest.raises(OSError, match="too long") as too_long:
        index.save(tmp_path / ("x" * 300))
    assert too_long.value.errno == errno.ENAMETOOLONG
    with pytest.raises(TypeError):
        index.save(3)  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_names_of_folders_may_be_awkward(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "./dot", "with space/", "ünï🌡", "x" * 250, "-dash", "a.b.c"):
        index.save(name)
        assert Index.load(name).path == tmp_path / name
        index.save(name, overwrite=True)


def test_a_folder_that_can_not_be_written_to(index: Index) -> None:
    # Not even root creates folders in /proc.
    with pytest.raises(OSError, match="/proc") as caught:
        index.save("/proc/elias_idx")
    assert caught.value.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on file sizes fails a write half-way, as a full disk does."""
    code = """
import resource, sys
import numpy as np
from elias_idx import Index
index = Index.build([[1.0] * 64], [0.0], ([0, 1], [0], [1.0]), np.ones((1000, 64)), np.zeros(1000))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    index.save(sys.argv[1], overwrite=True)
except OSError as error:
    print(type(error).__name__, error.errno, error.filename)
"""
    build(random_parts()).save(tmp_path / "old")
    for name in ("new", "old"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == ["OSError", str(errno.EFBIG), str(tmp_path / name)]
        assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    Index.load(tmp_path / "old").verify()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_is_no_index_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Index.load(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(FormatError, match=r"not an elias_idx index \(the folder has no index\.json\)"):
        Index.load(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "other"}')
    with pytest.raises(FormatError, match="not an elias_idx index"):
        Index.load(tmp_path)
    with pytest.raises(NotADirectoryError, match="an index is a folder"):
        Index.load(tmp_path / "index.json")
    assert issubclass(FormatError, EliasIdxError)
    assert not issubclass(FormatError, (ValueError, OSError))


@pytest.mark.parametrize("mmap", [True, False])
def test_damaged_files_are_named(saved: Path, mmap: bool) -> None:
    for file in sorted(saved.iterdir()):
        whole = file.read_bytes()
        for damaged in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0"):
            file.write_bytes(damaged)
            with pytest.raises(FormatError, match=file.name):
                Index.load(saved, mmap=mmap)
        file.unlink()
        with pytest.raises(FormatError, match=file.name):
            Index.load(saved, mmap=mmap)
        for at in (0, 20, 64, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(FormatError, match=file.name):
                Index.load(saved, mmap=mmap).verify()
        file.write_bytes(whole)
        Index.load(saved, mmap=mmap).verify()


def rewrite(folder: Path, old: str, new: str) -> None:
    """Changes the manifest's text and makes its checksum anew."""
    text = (folder / "index.json").read_text()
    assert old in text
    raw = text.replace(old, new).encode()
    blank = raw[:15] + b"0" * 64 + raw[79:]
    (folder / "index.json").write_bytes(raw[:15] + hashlib.sha256(blank).hexdigest().encode() + raw[79:])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format_version": 1', '"format_version": 2', "newer elias_idx, format 2; this reads 1: upgrade"),
        ('"required_features": []', '"required_features": ["warp"]', "needs the feature 'warp'"),
        ('"format": "elias_idx"', '"format": "faiss"', "not an elias_idx index"),
        ('"label_bias.safetensors"', '"../label_bias.safetensors"', "no plain name"),
        ('"num_labels": 60', '"num_labels": 61', "tensor 'label_.* not"),
    ],
)
def test_manifests_that_are_refused(saved: Path, old: str, new: str, message: str) -> None:
    rewrite(saved, old, new)
    with pytest.raises(FormatError, match=message):
        Index.load(saved)


def test_manifests_with_more_in_them_are_taken(saved: Path) -> None:
    rewrite(saved, '"format_version": 1', '"format_version": 1, "comment": [1, {}]')
    Index.load(saved).verify()


def test_a_damaged_name_is_an_error_when_it_is_read(saved: Path) -> None:
    file = saved / "label_name_bytes.safetensors"
    data = bytearray(file.read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] = 0xFF
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(data)
    rewrite(saved, old, hashlib.sha256(data).hexdigest())
    index = Index.load(saved)
    names = index.label_names
    assert names is not None
    assert names[5] == "label 5"
    with pytest.raises(FormatError, match="not UTF-8"):
        list(names)
    with pytest.raises(FormatError, match="not UTF-8"):
        index.names([1])


def test_pickles_of_foreign_files_are_checked_too(index: Index) -> None:
    files = index._core.to_files()
    with pytest.raises(FormatError, match=r"index\.json: damaged"):
        _core.Index.from_files({**files, "index.json": files["index.json"].replace(b"label_bias", b"label_bia5")})
    del files["label_bias.safetensors"]
    with pytest.raises(FormatError, match=r"label_bias\.safetensors: missing"):
        _core.Index.from_files(files)


def test_folders_are_replaced_at_once(tmp_path: Path) -> None:
    def save(content: str, overwrite: bool) -> None:
        staging = _core.Staging(tmp_path / "target", overwrite)
        (staging.path / "inner").mkdir()
        (staging.path / "inner" / "file").write_text(content)
        staging.publish()
        staging.remove()

    save("1", overwrite=False)
    with pytest.raises(FileExistsError):
        save("2", overwrite=False)
    assert (tmp_path / "target" / "inner" / "file").read_text() == "1"
    save("2", overwrite=True)
    assert (tmp_path / "target" / "inner" / "file").read_text() == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]
    staging = _core.Staging(tmp_path / "other", False)
    staging.remove()
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]
