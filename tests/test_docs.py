"""Code on documentation pages runs as it stands there, one block of a page after the other.

Blocks of `python` and `sh` are run, those of `py` and `bash` can't be: they need another host, an account or an
installation.
"""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from elias_idx.train import TrainingSet, train_model
from helpers_training import TINY, topic_texts

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUNNABLE = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Their Python uses files, a model or an index; that of others makes all that it uses.
WITH_FILES = ["data.md", "format.md", "ray-spark.md", "scoring.md"]


def blocks(page, language):
    return [code for kind, code in RUNNABLE.findall(page.read_text(encoding="utf-8")) if kind == language]


def run_python(page):
    found, names = blocks(page, "python"), {}
    assert found
    for block in found:
        exec(compile(block, page.name, "exec"), names)


def pages_with(language):
    return [page.name for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))] if blocks(page, language)]


# The README's Python has a test of its own.
@pytest.mark.parametrize("page", sorted({*pages_with("python")} - {*WITH_FILES, "README.md"}))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(DOCS / page)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files and models of the names that pages use; the current folder."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(["train", "dev", "test", "texts"]):
        texts, labels = topic_texts(seed=seed)
        rows = [json.dumps({"text": text, "labels": row}) for text, row in zip(texts, labels, strict=True)]
        Path(f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    Path("texts.jsonl.gz").write_bytes(gzip.compress(Path("texts.jsonl").read_bytes()))
    table = pa.table({"id": range(len(texts)), "lang": ["en"] * len(texts), "text": texts})
    for file in ("texts.parquet", "january/1.parquet", "february/1.parquet"):
        Path(file).parent.mkdir(exist_ok=True)
        pq.write_table(table, file)
    model = train_model(TrainingSet(*topic_texts()), "model", TINY)
    np.save("embeddings.npy", model.encode(texts))
    Path("labels.txt").write_text("a\nb\nc", encoding="utf-8")
    parts = {"W_C": torch.ones(2, 4), "W_L": torch.ones(3, 4)}
    torch.save({**parts, "A_labels": torch.tensor([[0, 1], [2, -1]]), "A": torch.zeros(2, 2)}, "model.pt")
    return tmp_path


@pytest.mark.parametrize("page", WITH_FILES)
def test_python_blocks_that_use_files_run(page, folder, monkeypatch):
    if page == "format.md":
        monkeypatch.chdir(folder / "model" / "index")
    run_python(DOCS / page)


@pytest.mark.integration
@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_run(page, folder):
    if page == "README.md":  # which trains its own
        (folder / "model").rename(folder / "another")
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for block in blocks(ROOT / page if page == "README.md" else DOCS / page, "sh"):
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, block + found.stdout + found.stderr


@pytest.mark.integration
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    # Pages are read without a network: all that is fetched is on the site, so mermaid's script isn't asked for either.
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"""<(?:script|img|link)[^>]+(?:src|href)=["']?https?:""", html), page
        assert not re.search(r"""<pre[^>]+class=["']?mermaid""", html), page
