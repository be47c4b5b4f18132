"""The accuracy benchmark's results in words and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .bootstrap import METRICS
from .markdown import described, row

_GB = 1e9
_BEGIN, _END = "<!-- table of accuracy: python benchmarks/accuracy.py table -->", "<!-- end of the table -->"
_NAMES = {"icd10cm": "ICD-10-CM", "eurlex57k": "EURLEX57K", "tibkat": "TIBKAT"}


def markdown(results: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the report."""
    yield f"# Accuracy, {results['date']}\n"
    yield described(results)
    yield (
        f"Command: `{results['command']}`. All systems have the same training and test texts. Figures are in "
        "percent, with 95 % intervals by the bootstrap over test texts; p is of a permutation test on the same "
        "texts, two-sided, against the peer that is best in that metric. Texts without labels count in no metric; "
        "labels that no training text has count as missed. Peers have their default settings. “Words” is "
        "scikit-learn's tf-idf with sublinear term frequencies; “our features” are those that elias_idx chooses for "
        "the data set by itself. Some peers stop at texts without any known feature: none gets such texts, and is "
        "given the most frequent labels for those of the test. Settings of elias_idx were chosen on held-out "
        "training texts; it runs without any option but preset, seed and, where labels have texts, `--labels`.\n"
    )
    for part in results["data_sets"]:
        yield from _data_set(part)


def readme_table(results: Mapping[str, Any]) -> str:
    """The README's table: each data set's systems."""
    lines = [row("", *METRICS, "training, CPU minutes"), row("---", *["---:"] * (len(METRICS) + 1))]
    for data in results["data_sets"]:
        sizes = f"{data['num_texts']:,} {data['split']} texts, {data['num_labels']:,} labels"
        lines.append(row(f"*{_title(data)}*, {sizes}", *[""] * (len(METRICS) + 1)))
        for part in _measured(data):
            if not part["name"].startswith("full-") or part["name"] == "full-0":
                figures = (f"{part['metrics'][name][0]:.2f}" for name in METRICS)
                lines.append(row(part["title"], *figures, f"{_training(part)['cpu'] / 60:.1f}"))
    return "\n".join(lines)


def with_table(readme: str, results: Mapping[str, Any]) -> str:
    """The README with these results between its markers.

    Raises:
        ValueError: it does not have each marker once.
    """
    before, marker, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (marker and end) or _BEGIN in after or _END in after:
        raise ValueError(f"the README must have {_BEGIN} and, after it, {_END}, each once")
    stem = f"benchmarks/results/accuracy-{results['date']}"
    more = f"With intervals, tests, an ablation, times and memory: [{stem}.md]({stem}.md)."
    return f"{before}{_BEGIN}\n{readme_table(results)}\n\n{more}\n{_END}{after}"


def _data_set(data: Mapping[str, Any]) -> Iterator[str]:
    parts = _measured(data)
    yield f"## {_title(data)}\n"
    yield (
        f"{data['num_training_texts']:,} training texts with {data['num_labels']:,} labels; {data['num_texts']:,} "
        f"{data['split']} texts, {data['num_texts_without_labels']:,} of them without labels, with "
        f"{data['num_unseen_labels']:,} labels that no training text has.\n"
    )
    yield from _metrics_table((part["title"], part["metrics"]) for part in parts)
    for part in data["parts"]:
        if "left_out" in part:
            yield f"\nLeft out: {part['title']} ({part['left_out']})."
    yield from _comparisons(data)
    yield from _seeds(parts)
    yield from _ablation(parts)
    yield from _groups(parts)
    if data["num_near_duplicates"]:
        yield (
            f"\n### Without near-duplicates\n\nWithout the {data['num_near_duplicates']:,} texts whose first 120 "
            "characters (or the whole, if shorter) are those of a training text, apart from case and all that is "
            "neither letter nor digit.\n"
        )
        yield from _metrics_table((part["title"], part["without_near_duplicates"]) for part in parts)
    yield from _costs(parts)


def _metrics_table(lines: Iterable[tuple[str, Mapping[str, Sequence[float]]]]) -> Iterator[str]:
    yield row("", *METRICS)
    yield row("---", *["---:"] * len(METRICS))
    for title, metrics in lines:
        yield row(title, *("{:.2f} ({:.1f}–{:.1f})".format(*metrics[name]) for name in METRICS))


def _comparisons(data: Mapping[str, Any]) -> Iterator[str]:
    if not data["comparisons"]:
        return
    titles = {part["name"]: part["title"] for part in data["parts"]}
    yield "\n### Against the best peer\n\nDifferences in points.\n"
    yield row("", "metric", "best peer", "difference", "p")
    yield row("---", "---", "---", "---:", "---:")
    for entry in data["comparisons"]:
        difference = "{:+.2f} ({:+.2f} to {:+.2f})".format(*entry["difference"])
        yield row(titles[entry["part"]], entry["metric"], titles[entry["peer"]], difference, f"{entry['p']:.4f}")


def _seeds(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seeds = [part for part in parts if part["name"].startswith("full-")]
    if len(seeds) < 2:
        return
    yield f"\n### Seeds\n\nOf {len(seeds)} runs of the preset full that differ in their seed:\n"
    yield row("", *METRICS)
    yield row("---", *["---:"] * len(METRICS))
    figures = np.array([[part["metrics"][name][0] for name in METRICS] for part in seeds])
    for title, values in (
        ("mean", figures.mean(0)),
        ("standard deviation", figures.std(0, ddof=1)),
        ("least", figures.min(0)),
        ("largest", figures.max(0)),
    ):
        yield row(title, *(f"{value:.2f}" for value in values))


def _ablation(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by_name = {part["name"]: part for part in parts}
    part = by_name.get("full-0")
    if not part or not part["steps"]:
        return
    yield "\n### What each part adds\n\nOf one trained model, then of three that differ in their seed.\n"
    lines = [(step["title"], step["metrics"]) for step in part["steps"]]
    lines.append(("+ fusion: the model", part["metrics"]))
    if "ensemble" in by_name:
        lines.append(("ensemble of 3", by_name["ensemble"]["metrics"]))
    yield from _metrics_table(lines)
    yield from _held_out(part["facts"]["training"])
    yield "\nThe share of a text's labels that the search's stages hold, averaged over texts:\n"
    yield row("", "labels a text", "recall")
    yield row("---", "---:", "---:")
    for entry in part["facts"]["recall"]:
        yield row(entry["candidates"], f"{entry['count']:,.0f}", f"{entry['recall']:.2f}")


def _held_out(training: Mapping[str, Any]) -> Iterator[str]:
    """What training says of the fusions that it tried."""
    steps = training.get("fusion", ())
    if not steps:
        return
    yield (
        f"\nIn training, on {training['num_held_out']:,} held-out texts: fusions of these parts, each fitted there and "
        "judged by cross-validation. The gain, in the mean of the metrics, is over the best before it; the model uses "
        "what gains.\n"
    )
    yield row("", *METRICS, "gain", "used")
    yield row("---", *["---:"] * (len(METRICS) + 1), "---")
    for number, step in enumerate(steps):
        gain = f"{step['gain']:+.2f} ± {step['standard_error']:.2f}" if number else ""
        figures = (f"{step['metrics'][name]:.2f}" if name in step["metrics"] else "" for name in METRICS)
        yield row(("+ " if number else "") + step["name"], *figures, gain, "yes" if step["used"] else "no")


def _groups(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not parts:
        return
    sizes = ", ".join(f"{group} {values['labels']:,}" for group, values in parts[0]["groups"].items())
    yield (
        "\n### Frequent and rare labels\n\nHead, torso and tail have a third of all labels' uses in training each; "
        f"labels: {sizes}. P@5 is each group's share of it (the three add up to P@5), R@k the share of the group's "
        "uses that is found.\n"
    )
    columns = [f"{group} {metric}" for metric in ("P@5", "R@10", "R@100") for group in ("head", "torso", "tail")]
    yield row("", *columns)
    yield row("---", *["---:"] * len(columns))
    for part in parts:
        figures = (part["groups"][group][metric] for group, metric in map(str.split, columns))
        yield row(part["title"], *(f"{value:.2f}" for value in figures))


def _costs(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "\n### What it took\n\nSeconds, and CPU seconds of all threads, which other load disturbs less; features are "
        "part of training where no separate figure stands. Memory is the process's peak, data and libraries included. "
        "Prediction is of the top 100 of all test texts.\n"
    )
    columns = ("features", "CPU", "training", "CPU", "prediction", "CPU", "GB", "threads", "begun", "commit")
    yield row("", *columns)
    yield row("---", *["---:"] * 8, "---", "---")
    for part in parts:
        seconds = (
            f"{part['seconds'][name][kind]:,.0f}" if name in part["seconds"] else ""
            for name in ("features", "train", "predict")
            for kind in ("wall", "cpu")
        )
        commit = part["versions"]["commit"]
        yield row(part["title"], *seconds, f"{part['peak_memory'] / _GB:.1f}", part["threads"], part["date"], commit)
    used = {
        (name, version)
        for part in parts
        for name, version in part["versions"].items()
        if name not in {"commit", "python", "elias_idx"}
    }
    yield f"\n{', '.join(f'{name} {version}' for name, version in sorted(used))}.\n"


def _training(part: Mapping[str, Any]) -> dict[str, float]:
    """Wall and CPU seconds from texts to a trained model."""
    return {
        kind: sum(part["seconds"][name][kind] for name in ("features", "train") if name in part["seconds"])
        for kind in ("wall", "cpu")
    }


def _measured(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in data["parts"] if "metrics" in part]


def _title(data: Mapping[str, Any]) -> str:
    return _NAMES.get(data["name"], data["name"])
