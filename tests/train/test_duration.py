"""The time that a training takes, as said before it starts."""

from dataclasses import replace

import pytest

from elias_idx.config import Config
from elias_idx.train.duration import expected, expected_seconds
from elias_idx.train.model_sizes import ModelSizes


def test_it_is_that_of_the_measured_steps():
    # Milliseconds of a batch of 256 texts in benchmarks/train_step.py, on one thread.
    for dim, milliseconds in ((256, 45), (512, 72)):
        config = Config(
            preset="fast", dim=dim, stage1_epochs=1, stage2_epochs=0, train_shortlist_size=500, shortlist_size=4_000
        )
        sizes = ModelSizes(256, 46_881, 1_024, num_features=300_000, num_entries=25_600)
        assert expected_seconds(config, sizes) * 1_000 == pytest.approx(milliseconds, rel=0.1)


SETTINGS = Config(train_shortlist_size=500, num_threads=1)
# The data sets of benchmarks/accuracy.py: D, S, epochs, sizes and the CPU seconds that one thread took.
MEASURED = {
    "icd10cm": (512, 4_000, (4, 2), ModelSizes(58_358, 46_881, 176_295, 93_604, 6_785_187, 2_873_576), 2_918, 240),
    "eurlex57k": (256, 4_108, (6, 3), ModelSizes(45_000, 4_108, 228_322, 223_340, 47_560_273, 164_321_338), 2_250, 505),
    "tibkat": (512, 4_000, (4, 2), ModelSizes(81_937, 33_318, 232_365, 644_982, 32_581_542, 103_068_526), 4_097, 761),
}


@pytest.mark.parametrize("name", MEASURED)
def test_it_is_that_of_the_measured_runs(name):
    dim, shortlist, (stage1, stage2), sizes, num_judged, seconds = MEASURED[name]
    config = replace(SETTINGS, dim=dim, shortlist_size=shortlist, stage1_epochs=stage1, stage2_epochs=stage2)
    assert expected_seconds(config, sizes, num_trainings=2, num_judged=num_judged) == pytest.approx(seconds, rel=0.25)


def test_it_is_said_in_words():
    dim, shortlist, (stage1, stage2), sizes, num_judged, _ = MEASURED["tibkat"]
    config = replace(SETTINGS, dim=dim, shortlist_size=shortlist, stage1_epochs=stage1, stage2_epochs=stage2)
    assert expected(config, sizes, 2, num_judged) == "about 10 min on 1 thread"
    assert expected(config, ModelSizes(100, 30, 200, 3_000, 5_000, 90_000), 2, 20) == "less than a minute"
    longer = replace(config, stage1_epochs=400)
    assert expected(longer, sizes, 1, num_judged).endswith("h on 1 thread")
