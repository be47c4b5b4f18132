"""Hugging Face encoders and their tokenizers: loaded without running any code of theirs, and saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elias_idx.errors import ConfigError, MissingExtraError
from elias_idx.files import is_plain_path

# None where the architecture has one way alone. Others come from packages or, where these are missing, from the hub.
_OWN_ATTENTION = (None, "eager", "sdpa", "flex_attention")

try:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "transformers", "transformer") from error

_WEIGHTS = "model.safetensors"


def load_pretrained(name: str) -> tuple[Any, Any]:
    """The encoder (in float32) and its tokenizer.

    Code that comes with a model isn't run, and weights are read from safetensors files only, since pickles may hold
    code too.

    Args:
        name: a folder, or a name on the Hugging Face hub.

    Raises:
        ConfigError: there is no such encoder, or it can't be used; the text says why.
    """
    name, options = _source(name)
    with _explained(name), _without_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        config = AutoConfig.from_pretrained(name, **options)
        _check_attention(config)
        model, info = AutoModel.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True, **options
        )
    if missing := {key for key in info["missing_keys"] if not key.startswith("pooler.")}:
        raise ConfigError(f"transformer {name} lacks weights of its own architecture: {', '.join(sorted(missing)[:3])}")
    if model.config.is_encoder_decoder:
        raise ConfigError(f"transformer {name} has a decoder too: only encoders can be used")
    if not tokenizer.is_fast:
        raise ConfigError(f"transformer {name} has no tokenizer.json: save its tokenizer as a fast one")
    if info["missing_keys"]:
        model.pooler = None
    return model.float(), tokenizer


def load_architecture(name: str) -> tuple[Any, Any]:
    """The encoder without memory for its weights, to tell its sizes, and its tokenizer.

    Raises:
        ConfigError: as `load_pretrained`.
    """
    name, options = _source(name)
    with _explained(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(name, **options)
        _check_attention(config)
        model = AutoModel.from_config(config, trust_remote_code=False)
        return model, AutoTokenizer.from_pretrained(name, **options)


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """A folder or a name on the hub, and how to load from it."""
    folder = Path(name).expanduser()
    is_folder = folder.is_dir()
    if is_folder:
        _check_files(folder)
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"transformer: there is no folder {name}")
    return str(folder) if is_folder else name, {"local_files_only": is_folder, "trust_remote_code": False}


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"transformer: {folder} has no config.json, so it is no Hugging Face encoder")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"transformer: {folder} has no weights as safetensors. Other formats may run code when they are read: "
            "load the model where you trust it, and save it with save_pretrained"
        )
    _check_links(folder)
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise ConfigError(f"transformer: {folder} has no tokenizer: save it into the same folder with save_pretrained")


def _check_links(folder: Path) -> None:
    """Refuses what makes Transformers read weights from elsewhere."""
    if (folder / "adapter_config.json").exists():
        raise ConfigError(f"transformer: {folder} is an adapter to another model: merge the two, and save that")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"transformer: {index} is damaged: {error!r}") from error
        # Of other files Transformers would unpickle the tensors.
        if strangers := [name for name in names if not (is_plain_path(name) and name.endswith(".safetensors"))]:
            raise ConfigError(f"transformer: {index} names {strangers[0]!r}, no safetensors file within the folder")


def _check_attention(config: Any) -> None:
    """Refuses attention by other code than Transformers' own, some of which it would fetch and run."""
    name = getattr(config, "_attn_implementation", None)
    if name not in _OWN_ATTENTION:
        raise ConfigError(f"its config.json wants attention by {name!r}, which is code from elsewhere: remove that")
    for part in config.sub_configs:
        if (inner := getattr(config, part, None)) is not None:
            _check_attention(inner)


def save_pretrained(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` into the folder."""
    # What the last call left there is no part of the tokenizer.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    with _without_progress_bars():
        # Never in parts: the name of the weights' file stays the same.
        model.save_pretrained(folder, max_shard_size=2**62)
        tokenizer.save_pretrained(folder, legacy_format=False, save_jinja_files=False)
    # Safetensors makes files that only their owner can read.
    shutil.copymode(folder / "config.json", folder / _WEIGHTS)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # Damaged files make the loaders fail in any way.
        raise ConfigError(f"transformer {name} can't be loaded: {error}") from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Transformers shows some even for what takes a moment."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
