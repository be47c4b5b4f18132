"""A transformer in training: tuned with the rest, or frozen. N texts, Q of them in a batch, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor
from tqdm import tqdm

from elias_idx.config import Config
from elias_idx.data import Inputs, as_texts
from elias_idx.encoders.tokens import Tokens
from elias_idx.encoders.transformer import TransformerEncoder
from elias_idx.features import TextFeatures
from elias_idx.train.encoders.base import TrainableEncoder
from elias_idx.train.encoders.cache import cached, fingerprint
from elias_idx.train.encoders.token_cache import cached_tokens, texts_fingerprint
from elias_idx.train.row_table import RowTable

_TEXTS_AT_ONCE = 4096


class _OverTexts(TrainableEncoder):
    """What tuned and frozen transformers have in common."""

    def __init__(self, texts: Inputs, config: Config) -> None:
        super().__init__()
        self._texts, self._config = as_texts(texts), config
        # No submodule: a frozen transformer's weights are in no checkpoint.
        self._encoder = load_transformer(config)

    @property
    def dim(self) -> int:
        return self._encoder.dim

    @property
    def sparse_features(self) -> sp.csr_matrix:
        return TextFeatures(self._config.blocks).fit_transform(self._texts, self._config.num_threads)

    def sparse_features_of(self, texts: Sequence[str]) -> sp.csr_matrix:
        threads = self._config.num_threads
        return TextFeatures(self._config.blocks).fit(self._texts, threads).transform(texts, threads)

    def row_tables(self) -> list[RowTable]:
        return []

    def finished(self) -> TransformerEncoder:
        return self._encoder


class TransformerModule(_OverTexts):
    """A transformer whose weights are trained; see `TransformerEncoder`."""

    _tokens: Tokens

    def __init__(self, texts: Inputs, config: Config) -> None:
        super().__init__(texts, config)
        self.transformer = self._encoder.transformer
        # Transformers loads models ready for use, without dropout.
        self.train()

    def prepare(self, folder: Path) -> None:
        self._tokens = cached_tokens(folder, self._texts, self._encoder.tokenizer, self._encoder.max_tokens)

    def dense_features(self) -> npt.NDArray[np.float32]:
        return self._encoder.encode(self._texts)

    def forward(self, rows: Tensor) -> Tensor:
        config = self._config
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            texts, recompute = rows.cpu().numpy(), config.gradient_checkpointing
            return self.transformer.embed(self._tokens, texts, recompute=recompute)

    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # Gains and biases aren't decayed, as usual.
        return [
            {
                "params": [parameter for parameter in trained if (parameter.ndim > 1) == is_matrix],
                "lr": config.transformer_learning_rate,
                "weight_decay": config.weight_decay if is_matrix else 0.0,
            }
            for is_matrix in (True, False)
        ]


class FrozenTransformerModule(_OverTexts):
    """A transformer that keeps its weights: the texts' embeddings are computed once, to a mapped file."""

    _embeddings: npt.NDArray[np.float32]

    def prepare(self, folder: Path) -> None:
        encoder = self._encoder
        encoder.transformer.to(self._config.device)
        weights = (tensor.cpu().numpy().tobytes() for tensor in encoder.transformer.state_dict().values())
        texts = texts_fingerprint(self._texts, encoder.tokenizer, encoder.max_tokens)
        settings = f"{encoder.transformer.pooling} {encoder.transformer.length}"
        path = cached(folder, "embeddings", fingerprint(texts, settings, weights), self._write)
        self._embeddings = np.load(path / "embeddings.npy", mmap_mode="r")

    def _write(self, folder: Path) -> None:
        shape = (len(self._texts), self.dim)
        embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float32, shape)
        with tqdm(total=len(self._texts), desc="embedding", unit="text", disable=None) as progress:
            for start in range(0, len(self._texts), _TEXTS_AT_ONCE):
                texts = self._texts[start : start + _TEXTS_AT_ONCE]
                embeddings[start : start + len(texts)] = self._encoder.encode(texts)
                progress.update(len(texts))
        embeddings.flush()

    def dense_features(self) -> npt.NDArray[np.float32]:
        return self._embeddings

    def forward(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self._embeddings[rows.cpu().numpy()]).to(rows.device)

    def parameter_groups(self, config: Config) -> list[dict[str, Any]]:  # noqa: ARG002
        return []


def transformer_module(inputs: Inputs, config: Config) -> TransformerModule | FrozenTransformerModule:
    """The transformer, tuned or frozen as the configuration says."""
    return (FrozenTransformerModule if config.frozen else TransformerModule)(inputs, config)


def load_transformer(config: Config) -> TransformerEncoder:
    """The encoder that the configuration names, as it was trained before.

    Raises:
        ConfigError: it can't be used.
    """
    assert config.transformer is not None
    return TransformerEncoder.from_pretrained(
        config.transformer, config.pooling, config.max_tokens, config.embedding_norm
    )
