"""A transformer as an encoder: token embeddings → one embedding a text, scaled to a fixed length.

N texts, Q of them at once, T tokens of the longest, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from elias_idx.data import Inputs, as_texts
from elias_idx.encoders.pretrained import load_pretrained, save_pretrained
from elias_idx.encoders.tokens import Tokens, batches_by_length, tokenize, tokens_at_once
from elias_idx.errors import ConfigError, FormatError, MissingExtraError

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
    from torch.utils.checkpoint import checkpoint
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "transformer") from error

# Texts that are sorted by length together.
_TEXTS_AT_ONCE = 4096


class TextTransformer(nn.Module):
    """Token ids → pooled embeddings of a fixed length; what serving and training share.

    Args:
        model: a Hugging Face encoder.
        pooling: "mean" over the tokens, "cls" for the first token, or the model's own "pooler".
        length: the norm of every embedding.

    Raises:
        ConfigError: the pooling is unknown, or the model has no pooler, but is to be pooled by it.
    """

    def __init__(self, model: Any, pooling: str, length: float) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.length = length
        if pooling not in ("mean", "cls", "pooler"):
            raise ConfigError(f"pooling must be mean, cls or pooler, got {pooling!r}")
        pooler = getattr(model, "pooler", None)
        if pooling == "pooler" and pooler is None:
            raise ConfigError("pooling is pooler, but the transformer has none that was trained: use mean or cls")
        if pooling != "pooler" and pooler is not None:
            pooler.requires_grad_(False)

    @property
    def dim(self) -> int:
        """D."""
        return self.model.config.hidden_size

    def forward(self, ids: Tensor, present: Tensor) -> Tensor:
        """The embeddings of padded token ids, int64 [Q, T] with a mask of the same shape → float32 [Q, D]."""
        output = self.model(input_ids=ids, attention_mask=present)
        if self.pooling == "pooler":
            pooled = output.pooler_output
        elif self.pooling == "cls":
            pooled = output.last_hidden_state[:, 0]
        else:
            pooled = (output.last_hidden_state.float() * present[:, :, None]).sum(1) / present.sum(1, keepdim=True)
        return self.length * F.normalize(pooled.float(), dim=1)

    def embed(self, tokens: Tokens, texts: npt.NDArray[np.int64], *, recompute: bool = False) -> Tensor:
        """The embeddings of the given texts, in that order; float32 [Q, D].

        They go through the model in batches of like length.

        Args:
            tokens: of all texts.
            texts: their numbers there, [Q].
            recompute: whether the gradients' computation repeats each batch instead of holding all that it needs.
        """
        forward = partial(checkpoint, self, use_reentrant=False) if recompute else self
        device = next(self.model.parameters()).device
        batches = list(batches_by_length(tokens.lengths[texts], tokens_at_once(device.type)))
        parts = []
        for batch in batches:
            ids, present = tokens.rectangle(texts[batch])
            parts.append(forward(torch.from_numpy(ids).to(device), torch.from_numpy(present).to(device)))
        places = np.argsort(np.concatenate(batches))
        return torch.cat(parts)[torch.from_numpy(places).to(device)]


@dataclass(frozen=True)
class TransformerEncoder:
    """φ(x) = length · pooled / ‖pooled‖, of a transformer's token embeddings.

    Attributes:
        transformer: token ids → embeddings.
        tokenizer: the model's own.
        max_tokens: what is read of a text.
    """

    kind: ClassVar[str] = "transformer"

    transformer: TextTransformer
    tokenizer: Any
    max_tokens: int

    def __post_init__(self) -> None:
        check_max_tokens(self.max_tokens, self.transformer.model, self.tokenizer)

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""
        return self.transformer.dim

    @property
    def features(self) -> None:
        """None: it reads the texts themselves."""

    def encode(
        self,
        inputs: Inputs,
        num_threads: int | None = None,
        *,
        sparse: sp.csr_matrix | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        """The texts' embeddings, float32 [N, D].

        Where the CPU multiplies bfloat16 natively, the transformer computes in it.

        Args:
            inputs: N texts.
            num_threads: CPU threads at most; by default torch's number, which this call lowers for its time.
            sparse: not looked at.

        Raises:
            DataError: the inputs are an array, or not all strings.
        """
        texts = as_texts(inputs)
        result = np.empty((len(texts), self.dim), np.float32)
        with _serving(self.transformer), _at_most(num_threads):
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                tokens = tokenize(self.tokenizer, texts[start : start + _TEXTS_AT_ONCE], self.max_tokens)
                embeddings = self.transformer.embed(tokens, np.arange(len(tokens.lengths)))
                result[start : start + len(embeddings)] = embeddings.cpu().numpy()
        return result

    def save(self, folder: Path) -> None:
        """Writes `transformer.json` and the model's and the tokenizer's own files into the folder."""
        save_pretrained(folder, self.transformer.model, self.tokenizer)
        settings = {
            "pooling": self.transformer.pooling,
            "max_tokens": self.max_tokens,
            "length": self.transformer.length,
        }
        (folder / "transformer.json").write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TransformerEncoder:
        """Reads what `save` wrote.

        Raises:
            FormatError: it is damaged.
        """
        settings = json.loads((folder / "transformer.json").read_text(encoding="utf-8"))
        try:
            return cls.from_pretrained(str(folder), **settings)
        except ConfigError as error:
            raise FormatError(f"{folder}: the encoder is damaged: {error}") from error

    @classmethod
    def from_pretrained(cls, name: str, pooling: str, max_tokens: int, length: float) -> TransformerEncoder:
        """An encoder from a folder or a name on the Hugging Face hub; see `load_pretrained`."""
        model, tokenizer = load_pretrained(name)
        return cls(TextTransformer(model, pooling, length), tokenizer, max_tokens)


def check_max_tokens(max_tokens: int, model: Any, tokenizer: Any) -> None:
    """Raises a ConfigError unless the transformer reads texts of that many tokens."""
    shortest, limit = tokenizer.num_special_tokens_to_add() + 1, _longest_text(model, tokenizer)
    if not shortest <= max_tokens <= limit:
        raise ConfigError(
            f"max_tokens is {max_tokens}, but this transformer reads between {shortest} and {limit} tokens"
        )


def _longest_text(model: Any, tokenizer: Any) -> int:
    """The most tokens that the model reads."""
    positions = getattr(model.config, "max_position_embeddings", None)
    padding = getattr(getattr(getattr(model, "embeddings", None), "position_embeddings", None), "padding_idx", None)
    if positions and padding is not None:
        # As in RoBERTa, whose positions begin behind that of padding.
        positions -= padding + 1
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)


@contextmanager
def _serving(transformer: TextTransformer) -> Iterator[None]:
    """Without dropout and gradients, and in bfloat16 where that is native; the model is as before in the end."""
    device = next(transformer.model.parameters()).device
    training = transformer.training
    transformer.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=_has_bfloat16(device)):
            yield
    finally:
        transformer.train(training)


@contextmanager
def _at_most(num_threads: int | None) -> Iterator[None]:
    """Lowers torch's number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, num_threads or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not public, and not in every version.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and supported()
