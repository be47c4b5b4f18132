"""The wheel, as users get it: its tag, and that it searches in an environment with NumPy alone."""

import json
import platform
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]

SEARCH = """
import json, sys
import numpy as np
import elias_idx

rows = np.random.default_rng(0).standard_normal((100, 16))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
adjacency = [0, 100], np.arange(100), np.ones(100)
index = elias_idx.Index.build(np.zeros((1, 16)), [0.0], adjacency, rows, np.zeros(100))
index.save("index")
labels, _ = elias_idx.Index.load("index").search(rows, 1)
missing = None
try:
    elias_idx.Model
except ImportError as error:
    missing = str(error)
others = sorted(name for name in ("scipy", "torch", "sklearn", "click") if name in sys.modules)
print(json.dumps([elias_idx.__file__, labels[:, 0].tolist(), missing, others]))
"""


def run(*command, **options):
    found = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "maturin", "build", "--release", "--out", out, cwd=ROOT)
    (wheel,) = out.glob("*.whl")
    return wheel


def test_one_wheel_is_for_all_versions_of_python(wheel):
    assert re.fullmatch(r"elias_idx-[\d.]+-cp310-abi3-\w+\.whl", wheel.name)


@pytest.mark.skipif(platform.system() != "Linux", reason="manylinux is of Linux")
def test_its_tag_is_what_it_needs(wheel):
    (tag,) = re.findall(r"manylinux_\d+_\d+_\w+", wheel.name)
    assert f'"{tag}"' in run(sys.executable, "-m", "auditwheel", "show", wheel)


def test_it_searches_with_numpy_alone(wheel, tmp_path):
    venv.create(tmp_path / "bare", with_pip=True)
    binaries = tmp_path / "bare" / ("Scripts" if platform.system() == "Windows" else "bin")
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel)
    installed = run(binaries / "python", "-m", "pip", "list", "--format", "freeze").split()
    names = {line.partition("==")[0] for line in installed} - {"pip", "setuptools"}
    assert {name.replace("_", "-") for name in names} == {"elias-idx", "numpy"}
    # Neither Rust nor this folder is in reach.
    place, found, missing, others = json.loads(
        run(binaries / "python", "-I", "-c", SEARCH, cwd=tmp_path, env={"PATH": str(binaries)})
    )
    assert Path(place).is_relative_to(tmp_path)
    # A unit vector is nearest to itself.
    assert found == list(range(100))
    assert "elias_idx[text]" in missing
    assert others == []
