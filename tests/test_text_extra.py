"""What predicting from texts with a bag model takes: NumPy and the extra `text`, nothing else."""

import subprocess
import sys

import pytest

from elias_idx.train import TrainingSet, train_model
from helpers_training import TINY, topic_texts

# What NumPy, SciPy and safetensors may not bring, and elias_idx must not import for this.
OTHERS = ("click", "lightgbm", "pyarrow", "sklearn", "torch", "tqdm", "transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    train_model(TrainingSet(*topic_texts(num_topics=8)), path, TINY)
    return path


def run_without(modules, code, *arguments):
    """Runs code in a Python to which these modules are missing."""
    missing = f"import sys; sys.modules.update(dict.fromkeys({list(modules)!r})); "
    command = [sys.executable, "-c", missing + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bag_model_predicts_with_numpy_scipy_and_safetensors_alone(saved):
    code = (
        "import elias_idx; "
        "print(elias_idx.Model.load(sys.argv[1]).predict(['topic1x subject1y'], 1).names); "
        f"print(sorted(name for name in {OTHERS!r} if sys.modules.get(name)))"
    )
    found = run_without(OTHERS, code, saved)
    assert found.stdout.splitlines() == ["[['t1']]", "[]"], found.stderr


@pytest.mark.parametrize("package", ["scipy", "safetensors"])
def test_what_is_missing_is_named_with_its_extra(package):
    found = run_without([package], "import elias_idx; elias_idx.Model")
    assert f"{package}" in found.stderr
    assert "pip install 'elias_idx[text]'" in found.stderr
