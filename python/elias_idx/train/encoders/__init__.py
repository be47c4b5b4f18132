"""The trainable halves of the encoders: torch modules over the training inputs."""

from __future__ import annotations

from elias_idx.config import Config
from elias_idx.data import Inputs
from elias_idx.errors import ConfigError
from elias_idx.train.encoders.bag import BagModule
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.encoders.precomputed import PrecomputedModule

__all__ = ["BagModule", "PrecomputedModule", "TrainableEncoder", "build_encoder"]


def build_encoder(config: Config, inputs: Inputs) -> TrainableEncoder:
    """The trainable encoder that the configuration names, over the training inputs.

    Raises:
        ConfigError: the transformer can't be used, or `label_dim` is more than the embeddings' size.
        DataError: the inputs are not what that encoder takes.
        MissingExtraError: packages for transformers are missing.
    """
    encoder = _encoder(config, inputs)
    if config.label_dim is not None and config.label_dim > encoder.dim:
        raise ConfigError(f"label_dim is {config.label_dim}, but embeddings have {encoder.dim} dimensions: lower it")
    return encoder


def _encoder(config: Config, inputs: Inputs) -> TrainableEncoder:
    if config.encoder == "precomputed":
        return PrecomputedModule(inputs)
    if config.encoder == "bag":
        return BagModule(inputs, config)
    # With these, transformers is imported.
    if config.encoder == "transformer":
        from elias_idx.train.encoders.transformer import transformer_module

        return transformer_module(inputs, config)
    from elias_idx.train.encoders.hybrid import HybridModule

    return HybridModule(inputs, config)
