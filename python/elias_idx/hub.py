"""Models on the Hugging Face Hub: cards, uploads and downloads. All but cards needs the extra `elias_idx[hub]`."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elias_idx import __version__
from elias_idx.errors import MissingExtraError
from elias_idx.features import GivenFeatures
from elias_idx.index import Index
from elias_idx.model import Model

if TYPE_CHECKING:
    from elias_idx.ensemble import Ensemble

# What models are made of: nothing else is downloaded.
_FILES = ["*.json", "*.safetensors"]
# What a model that was there may have had and the new one lacks.
_FOLDERS = ["encoder/*", "features/*", "index/*", "members/*", "*.safetensors"]


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None,
    token: str | None,
    revision: str | None,
    commit_message: str,
    create_pr: bool,
) -> str:
    """Uploads a saved model in one commit, in place of one that is there; returns the commit's address.

    Raises:
        MissingExtraError: huggingface_hub is missing.
        OSError: the Hub refuses, or can't be reached.
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    api = HfApi(token=token, library_name="elias_idx", library_version=__version__)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        revision=revision,
        commit_message=commit_message,
        create_pr=create_pr,
        delete_patterns=_FOLDERS,
    )
    return str(commit.commit_url)


def local_folder(
    name: str | PathLike[str], *, revision: str | None, cache_dir: str | PathLike[str] | None, token: str | None
) -> Path:
    """The folder of that name or, if there is none, that of the repository's model in the Hub's cache.

    Raises:
        FileNotFoundError: the name can be neither.
        MissingExtraError: there is no such folder, and huggingface_hub is missing.
        OSError: there is no such repository, or the Hub can't be reached.
    """
    if (folder := Path(name)).exists():
        return folder
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    try:
        path = snapshot_download(
            str(name),
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            token=token,
            allow_patterns=_FILES,
            library_name="elias_idx",
            library_version=__version__,
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name} is no folder, and can't be a repository's name: {error}") from error
    return Path(path)


def write_card(model: Model | Ensemble, folder: Path, name: str) -> None:
    """Writes the model card of a model that was saved to the folder, under the name that it is loaded by."""
    (folder / "README.md").write_text(model_card(model, folder, name), encoding="utf-8")


def model_card(model: Model | Ensemble, folder: Path, name: str) -> str:
    """What the model is, what it was trained on, how good and how large it is, and how it is used, in Markdown.

    Args:
        model: the model.
        folder: where it was saved.
        name: what it is loaded by: a repository or a folder.
    """
    members = [model] if isinstance(model, Model) else list(model.members)
    sections = [
        _front_matter(model),
        f"# {name}\n\n{_summary(model, members)}",
        f"## Use\n\n{_use(model, members[0], name)}",
        f"## Training data\n\n{_table(('', ''), _data(model))}",
        f"## Metrics\n\n{_metrics(members)}",
        f"## Sizes\n\n{_table(('part', 'size'), _sizes(folder))}",
        f"## Settings\n\n{_settings(members)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(model: Model | Ensemble) -> str:
    task = [] if model.takes_embeddings else ["pipeline_tag: text-classification"]
    tags = ["tags:", "- elias_idx", "- extreme-multi-label-classification"]
    return "\n".join(["---", "library_name: elias_idx", *task, *tags, "---"])


def _summary(model: Model | Ensemble, members: list[Model]) -> str:
    joined = f" It is an ensemble of {len(members)} models, whose scores are averaged." if len(members) > 1 else ""
    added = " Its scores can be given as probabilities (`calibrated=True`)." if model.has_calibration else ""
    return (
        f"Finds the few right ones out of {len(model.label_counts):,} labels for {_inputs(members[0])[0]}: "
        f"a learned search index, made with elias_idx {__version__}.{joined}{added}"
    )


def _inputs(model: Model) -> tuple[str, str]:
    """What a model takes, in words and as an example in Python."""
    if model.takes_embeddings:
        return f"embeddings of size {model.index.dim}", f"np.zeros((1, {model.index.dim}), np.float32)"
    if isinstance(model.features, GivenFeatures):
        return f"{model.features.num_features:,} sparse features", f"sp.csr_matrix((1, {model.features.num_features}))"
    return "texts", '["a text"]'


def _use(model: Model | Ensemble, member: Model, name: str) -> str:
    example = _inputs(member)[1]
    imports = {"np": "import numpy as np\n", "sp": "import scipy.sparse as sp\n"}.get(example[:2], "")
    calibrated = ", calibrated=True" if model.has_calibration else ""
    return (
        "```\npip install 'elias_idx[train,hub]'\n```\n\n"
        f"```python\n{imports}from elias_idx import Model\n\n"
        f"model = Model.from_pretrained({name!r})\n"
        f"found = model.predict({example}, k=10{calibrated})\n"
        "print(found.names, found.scores)\n```"
    )


def _data(model: Model | Ensemble) -> list[tuple[str, str]]:
    uses = int(model.label_counts.sum())
    return [
        ("rows", f"{model.num_training_texts:,}"),
        ("labels", f"{len(model.label_counts):,}"),
        ("labels a row", f"{uses / model.num_training_texts:.2f}"),
        ("rows of a label, median", f"{np.median(model.label_counts):,.0f}"),
    ]


def _metrics(members: list[Model]) -> str:
    """A table with a line for each member that was judged."""
    judged = {str(number): found for number, member in enumerate(members) if (found := _judged(member))}
    if not judged:
        return "None were taken in training, which had no held-out or dev texts."
    names = list(next(iter(judged.values())))
    rows = [(number, *(f"{found[name]:.2f}" for name in names)) for number, found in judged.items()]
    said = (
        "In percent, on texts that were held out of training, or on its dev texts; epochs and fusion were chosen there."
    )
    return f"{said}\n\n{_table(('model', *names), rows)}"


def _judged(model: Model) -> dict[str, float]:
    """The metrics of the model as it is used: of its last step that was worth it, or of the dense model."""
    used = [step["metrics"] for step in model.report.get("fusion", []) if step["used"]]
    return dict(used[-1] if used else model.report.get("metrics", {}))


def _sizes(folder: Path) -> list[tuple[str, str]]:
    parts = {entry.name: _num_bytes(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    return [(name, f"{size / 2**20:,.1f} MiB") for name, size in {**parts, "total": _num_bytes(folder)}.items()]


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _settings(members: list[Model]) -> str:
    blocks = (
        f"<details><summary>model {number}: {_index(member.index)}</summary>\n\n"
        f"```json\n{json.dumps(dict(member.settings), indent=2)}\n```\n\n</details>"
        for number, member in enumerate(members)
    )
    return "\n\n".join(blocks)


def _index(index: Index) -> str:
    return (
        f"{index.num_clusters:,} clusters, embeddings of size {index.dim}, label weights {index.dtype}, "
        f"beam {index.beam_size:,}, shortlist {index.shortlist_size:,}"
        + (", fused with sparse features" if index.has_fusion else "")
    )


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
