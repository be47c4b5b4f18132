"""A run that is killed again and again, at any step and while files are written, ends like an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Forks a process for every attempt, which spares the imports.
SCRIPT = """
import os, random, signal, sys
from dataclasses import replace
from elias_idx.data import TrainingSet
from elias_idx.train import checkpoint, train_model
from elias_idx.train.logs import TrainingLog
from elias_idx.train.steps import Steps
from helpers_training import TINY, topic_texts

folder, preset = sys.argv[1:]
data = TrainingSet(*topic_texts())
dev = TrainingSet(*topic_texts(seed=1, per_topic=2)) if preset == "fast" else None
config = replace(TINY, preset=preset, checkpoint_steps=4)
train_model(data, folder + "/undisturbed", config, dev=dev)
rng = random.Random(1)

def doomed(function, calls):
    left = [calls]
    def call(*args, **kwargs):
        function(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

kills = 0
while True:
    at_a_step, between_parts, calls = rng.random() < 0.6, rng.random() < 0.5, rng.randint(3, 25)
    child = os.fork()
    if not child:
        if at_a_step:
            TrainingLog.step = doomed(TrainingLog.step, calls)
        elif preset == "full" and between_parts:
            Steps.say = doomed(Steps.say, calls)
        else:
            # The checkpoint's file is written by then, but has not taken its place.
            checkpoint.save_file = doomed(checkpoint.save_file, 1 + calls // 5)
        train_model(data, folder + "/killed", config, dev=dev, if_exists="resume")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not status:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("preset", ["fast", "full"])
def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path, preset):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), preset]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) >= 4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed", "undisturbed"]
    one, other = (files(tmp_path / name) for name in ("undisturbed", "killed"))
    assert one == other


def files(folder):
    """The contents of a model's files, of which none says when it was made."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
