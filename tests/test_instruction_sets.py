"""The level of the kernels, which a variable chooses."""

import os
import subprocess
import sys

import pytest

import elias_idx

LEVELS = ["portable", "avx2", "avx512", "amx"]

SEARCH = """
import numpy as np, elias_idx
index = elias_idx.Index.build([[1.0]], [0.0], ([0, 1], [0], [1.0]), [[1.0]], [0.0])
for call in (elias_idx.instruction_set, lambda: index.search([1.0]).labels[0]):
    try:
        print(call())
    except ValueError as error:
        print(error)
"""


def at_level(level: str | None) -> list[str]:
    """What a fresh process says its level is, and what its search says."""
    environment = {name: value for name, value in os.environ.items() if name != "ELIAS_IDX_ISA"}
    if level is not None:
        environment["ELIAS_IDX_ISA"] = level
    done = subprocess.run(
        [sys.executable, "-c", SEARCH], check=True, env=environment, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return done.stdout.splitlines()


def test_the_variable_chooses_a_level_up_to_the_best() -> None:
    best, found = at_level(None)
    assert found == "0"
    assert at_level("") == [best, "0"]
    for level in LEVELS[: LEVELS.index(best) + 1]:
        assert at_level(level) == [level, "0"]
    for level in LEVELS[LEVELS.index(best) + 1 :]:
        assert at_level(level)[0].startswith(f"the environment variable ELIAS_IDX_ISA is '{level}'")


@pytest.mark.parametrize("bad", ["avx1024", "AVX2", " portable"])
def test_a_level_that_does_not_exist_is_refused_with_those_that_do(bad: str) -> None:
    best = at_level(None)[0]
    available = ", ".join(LEVELS[: LEVELS.index(best) + 1])
    message = f"the environment variable ELIAS_IDX_ISA is '{bad}': this machine has {available}"
    assert at_level(bad) == [message, message]


def test_this_process_has_one_of_them() -> None:
    assert elias_idx.instruction_set() in LEVELS
