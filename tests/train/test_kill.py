"""A run that is killed again and again, at steps and while checkpoints are written, ends like an undisturbed one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elias_idx import Index, Model

# Forks a process for every attempt, which spares the imports.
SCRIPT = """
import os, random, signal, sys
from dataclasses import replace
from elias_idx.data import TrainingSet
from elias_idx.train import checkpoint, train_model
from elias_idx.train.logs import TrainingLog
from helpers_training import TINY, topic_texts

folder = sys.argv[1]
data, dev = TrainingSet(*topic_texts()), TrainingSet(*topic_texts(seed=1, per_topic=2))
config = replace(TINY, checkpoint_steps=4)
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
    at_a_step, calls = rng.random() < 0.6, rng.randint(3, 25)
    child = os.fork()
    if not child:
        if at_a_step:
            TrainingLog.step = doomed(TrainingLog.step, calls)
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
def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) >= 4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed", "undisturbed"]
    one, other = (Index.load(tmp_path / name / "index") for name in ("undisturbed", "killed"))
    for name in ("cluster_weights", "cluster_bias", "label_weights", "label_bias"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert all(np.array_equal(a, b) for a, b in zip(one.adjacency, other.adjacency, strict=True))
    encoders = [Model.load(tmp_path / name).encoder.embeddings for name in ("undisturbed", "killed")]
    assert np.array_equal(*encoders)
