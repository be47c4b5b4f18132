"""The commands of `elias-idx`: each module adds its own to the group. They read files, call the library and print."""

from elias_idx.cli import calibrate, demo, evaluate, explore, models, predict, score, train, tune  # noqa: F401
from elias_idx.cli.common import cli

__all__ = ["cli"]
