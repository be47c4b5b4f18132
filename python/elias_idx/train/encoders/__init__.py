"""The trainable halves of the encoders: torch modules over the training inputs."""

from __future__ import annotations

from elias_idx.config import Config
from elias_idx.data import Inputs
from elias_idx.train.encoders.bag import BagModule
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.encoders.precomputed import PrecomputedModule

__all__ = ["BagModule", "PrecomputedModule", "TrainableEncoder", "build_encoder"]


def build_encoder(config: Config, inputs: Inputs) -> TrainableEncoder:
    """The trainable encoder that the configuration names, over the training inputs.

    Raises:
        DataError: the inputs are not what that encoder takes.
    """
    if config.encoder == "precomputed":
        return PrecomputedModule(inputs)
    return BagModule(inputs, config)
