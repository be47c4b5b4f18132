"""What labels are worth that join a trained model, beside those that it was trained with.

    pip install -r benchmarks/requirements.txt
    python benchmarks/labels.py --full MODEL --hidden FOLDER

From the demo's training texts 1,000 labels are hidden, of those that test texts have, drawn at random; a model is
trained on the rest (into FOLDER, unless it is there), and the labels are added from their texts. MODEL is one of all
labels, by the same settings, as `benchmarks/accuracy.py` trains it.

With `--dev` the fit split takes the training texts' place and the dev split that of the test texts, to choose settings.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click
import numpy as np

from elias_idx.config import Config
from elias_idx.data import Row
from elias_idx.demo import icd10cm
from elias_idx.model import Model, load_single
from elias_idx.train import TrainingSet, train_model
from harness import environment
from harness.markdown import described, row

_HIDDEN = 1000


@dataclass(frozen=True)
class Task:
    """Texts, and the labels that are hidden.

    Attributes:
        train: all texts that a model of all labels is trained on.
        parts: the same in two parts, the second of which is like the texts that are judged by; or these texts alone.
        judged: texts that no model is trained on.
        hidden: the labels.
    """

    train: list[Row]
    parts: Sequence[list[Row]]
    judged: list[Row]
    hidden: frozenset[str]

    @classmethod
    def load(cls, dev: bool) -> Task:
        """Draws the labels."""
        data = icd10cm.load()
        fit, like_test = data.split_dev()
        train, parts, judged = (fit, [fit], like_test) if dev else (data.train, [fit, like_test], data.test)
        known, wanted = ({label for text in texts for label in text.labels} for texts in (train, judged))
        drawn = np.random.default_rng(0).choice(sorted(known & wanted), _HIDDEN, replace=False)
        return cls(train, parts, judged, frozenset(drawn.tolist()))

    def train_hidden(self, path: Path, num_threads: int) -> Model:
        """The model of the other labels, which is loaded if it is there."""
        if path.exists():
            return load_single(path)
        parts = [_training_set(texts, self.hidden) for texts in self.parts]
        dev = parts[1] if len(parts) > 1 else None
        config = Config(seed=0, num_threads=num_threads)
        return train_model(parts[0], path, config, dev=dev, refit=dev is not None, if_exists="resume")

    def examples(self, most: int | None = None) -> dict[str, list[str]]:
        """The hidden labels' texts, at most so many of each."""
        texts: dict[str, list[str]] = {label: [] for label in sorted(self.hidden)}
        for text in self.train:
            for label in self.hidden.intersection(text.labels):
                texts[label].append(text.text)
        return {label: own[:most] for label, own in texts.items()}

    def others(self) -> list[str]:
        """Texts without hidden labels."""
        return [text.text for text in self.train if not self.hidden.intersection(text.labels)]


@dataclass(frozen=True)
class Figures:
    """Of one model, in percent.

    Attributes:
        recall: R@10.
        hidden: how many of the judged texts' hidden labels are among their best ten.
        others: the same of their other labels.
        precision: P@1.
        seconds: of CPU that adding the labels took, if any were.
    """

    recall: float
    hidden: float
    others: float
    precision: float
    seconds: float | None

    @classmethod
    def of(cls, model: Model, task: Task, fusion: bool, seconds: float | None) -> Figures:
        """Predicts the judged texts' labels."""
        found = model.predict([text.text for text in task.judged], 10, fusion=fusion).names
        hits = [[label in best for label in text.labels] for best, text in zip(found, task.judged, strict=True)]
        flat = np.array([hit for own in hits for hit in own])
        hidden = np.array([label in task.hidden for text in task.judged for label in text.labels])
        first = [best[0] in text.labels for best, text in zip(found, task.judged, strict=True)]
        values = [np.mean([np.mean(own) for own in hits]), flat[hidden].mean(), flat[~hidden].mean(), np.mean(first)]
        return cls(*(100 * float(value) for value in values), seconds)


@click.command()
@click.option("--full", "full_path", type=click.Path(exists=True, path_type=Path), help="the model of all labels")
@click.option("--hidden", "hidden_path", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
@click.option("--dev", is_flag=True, help="judge by the dev split and print the figures alone")
@click.option("--num-threads", default=1, show_default=True)
def main(full_path: Path | None, hidden_path: Path, out: Path, dev: bool, num_threads: int) -> None:
    """Compares labels that were added to labels that were trained."""
    host, task = environment.machine(), Task.load(dev)
    hidden = task.train_hidden(hidden_path, num_threads)
    models = _models(hidden, task, num_threads)
    if full_path is not None:
        models["trained with all labels"] = lambda: Model.load(full_path)
    figures = dict(_measured(models, task))
    if dev:
        return
    results = {
        "machine": host,
        "versions": environment.versions(["numpy"]),
        "load_average_at_end": os.getloadavg()[0],
    }
    target = out / f"labels-{date.today()}.md"
    target.write_text("\n".join(_report(figures, task, results)) + "\n", encoding="utf-8")
    click.echo(target)


def _models(hidden: Model, task: Task, num_threads: int) -> dict[str, Callable[[], Model]]:
    def added(most: int | None, others: bool) -> Callable[[], Model]:
        texts, other_texts = task.examples(most), task.others() if others else None
        return lambda: hidden.add_labels(texts, other_texts=other_texts, num_threads=num_threads)

    return {
        "without these labels": lambda: hidden,
        "added from one text each": added(1, False),
        "added from three texts each at most": added(3, False),
        "added from all their texts": added(None, False),
        "added from all their texts, beside the other texts": added(None, True),
    }


def _measured(models: Mapping[str, Callable[[], Model]], task: Task) -> Iterator[tuple[str, list[Figures]]]:
    """The figures of each model, with its fusion and of the dense model alone."""
    for name, make in models.items():
        start = time.process_time()
        model = make()
        seconds = time.process_time() - start if name.startswith("added") else None
        figures = [Figures.of(model, task, fusion, seconds) for fusion in (True, False)]
        for kind, figure in zip(("fused", "dense"), figures, strict=True):
            click.echo(f"{name}, {kind}: {figure}")
        yield name, figures


def _report(figures: Mapping[str, list[Figures]], task: Task, results: Mapping[str, object]) -> Iterator[str]:
    counts = [len(texts) for texts in task.examples().values()]
    yield f"# Labels that are added to a trained model, {date.today()}\n"
    yield described(results)
    yield f"Command: `python benchmarks/labels.py {shlex.join(sys.argv[1:])}`.\n"
    yield (
        f"ICD-10-CM, {len(task.train):,} training texts, {len(task.judged):,} test texts; {_HIDDEN:,} labels hidden, "
        f"which have 1 to {max(counts)} training texts, half of them {np.median(counts):g} or fewer. Found: how many "
        "of the test texts' labels are among their ten best. In percent; seconds are CPU time.\n"
    )
    for at, kind in enumerate(("With the fusion", "The dense model alone")):
        yield f"## {kind}\n"
        yield row("the hidden labels were", "R@10", "hidden labels found", "other labels found", "P@1", "seconds")
        yield row("---", *["---:"] * 5)
        for name, both in figures.items():
            figure = both[at]
            values = [f"{value:.2f}" for value in (figure.recall, figure.hidden, figure.others, figure.precision)]
            yield row(name, *values, "" if figure.seconds is None else f"{figure.seconds:.0f}")
        yield ""


def _training_set(texts: Sequence[Row], hidden: frozenset[str]) -> TrainingSet:
    rows = [(text.text, [label for label in text.labels if label not in hidden]) for text in texts]
    kept = [(text, labels) for text, labels in rows if labels]
    return TrainingSet([text for text, _ in kept], [labels for _, labels in kept])


if __name__ == "__main__":
    main()
