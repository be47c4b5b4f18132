"""A few faults of every kind; `make faults` injects hundreds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from faults.run import KINDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, mounts small disks and limits resources")

# The others train, or run many commands.
QUICK = ["kill saves", "flip bits", "limit memory"]
LONG = [kind for kind in KINDS if kind not in QUICK]


def inject(kinds: list[str]) -> None:
    """In a process of its own, whose threads and imports don't get in the way of forks."""
    only = [part for kind in kinds for part in ("--only", kind)]
    command = [sys.executable, "-m", "faults.run", "--rounds", "1", *only]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(.+?): (?:\d+ faults|skipped)", done.stdout, flags=re.M) == kinds


def test_a_few_faults_do_no_harm() -> None:
    inject(QUICK)


@pytest.mark.integration
def test_faults_in_whole_commands_do_no_harm() -> None:
    inject(LONG)
