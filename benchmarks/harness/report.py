"""Dated results: JSON for machines, Markdown and a picture for readers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .markdown import described, row
from .timing import BATCH, MODES, ONE

_REFERENCES = ("torch", "torch, tuned", "faiss IVF bf16")
_OURS = "elias_idx float32 + screen"
_MODE_NAMES = {ONE: "one query", BATCH: "batch"}


def write(results: Mapping[str, Any], stem: Path) -> list[Path]:
    """Writes `stem`.json, .md and, if a trained model was searched, .png; returns what was written."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    written[0].write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if results["curve"]:
        written.append(stem.with_suffix(".png"))
        _draw(results["curve"], max(results["settings"]["threads"]), written[-1])
    written[1].write_text("\n".join(_markdown(results, stem.name)) + "\n", encoding="utf-8")
    return written


def _markdown(results: Mapping[str, Any], name: str) -> Iterator[str]:
    settings = results["settings"]
    yield f"# Search benchmark of {results['date']}\n"
    yield described(results)
    yield (
        f"Command: `{results['command']}`. Microseconds a query: the median of {settings['rounds']} rounds, and the "
        "least; contestants take turns in each round. Overlap: share of the exact float32 search's top k. Recall: "
        "share of the k labels that score highest when all labels are scored, which is what nearest-neighbour indexes "
        "look for; the model's own ranking is another.\n"
    )
    yield from _in_short(results["data_sets"], max(settings["threads"]))
    for part in results["data_sets"]:
        yield from _data_set(part, settings["threads"])
    if results["curve"]:
        yield f"## Quality against time on the trained model\n\n![P@5 and R@100 against time]({name}.png)\n"
        alone = " and ".join(f"{metric} {value:.2f} %" for metric, value in results["all_labels"].items())
        yield (
            "The model scores labels by path and classifier together. The classifiers alone, which were trained on "
            f"shortlists, give {alone} when all labels are scored: nearest-neighbour indexes approach that, no more.\n"
        )
        yield from _curve_table(results["curve"], max(settings["threads"]))


def _in_short(parts: Sequence[Mapping[str, Any]], num_threads: int) -> Iterator[str]:
    """How many times as fast as the references elias_idx is as it comes, on each data set."""
    by_name = [{entry["name"]: entry for entry in part["contestants"]} for part in parts]
    references = [name for name in _REFERENCES if any(name in entries for entries in by_name)]
    if not references or not all(_OURS in entries for entries in by_name):
        return
    yield f"{_OURS} with {num_threads} threads, times as fast as:\n"
    yield row("", *(f"{part['name']}, {_MODE_NAMES[mode]}" for part in parts for mode in MODES))
    yield row("---", *["---:"] * (len(parts) * len(MODES)))
    for name in references:
        speedups = [
            f"{_speedup(entries[_OURS], entries[name], num_threads, mode):.1f}" if name in entries else ""
            for entries in by_name
            for mode in MODES
        ]
        yield row(name, *speedups)
    yield ""


def _data_set(part: Mapping[str, Any], threads: Sequence[int]) -> Iterator[str]:
    dims, work, contestants = part["dims"], part["work"], part["contestants"]
    yield f"## {part['name']}\n"
    yield (
        f"L = {dims['num_labels']:,}, D = {dims['dim']:,}, C = {dims['num_clusters']:,}, {dims['edges']:,} edges, "
        f"Q = {dims['num_queries']:,}; B = {work['beam_size']}, S = {work['shortlist_size']:,}, k = {work['k']}. "
        f"Of {part['oracle']['num_queries']} queries the exact search finds {part['oracle']['overlap']:.4f} of the "
        f"float64 oracle's labels, scores at most {part['oracle']['largest_difference']:.1e} off, relatively.\n"
    )
    floors = "; ".join(
        f"{count} thr. {floor['clusters']:,.0f} + {floor['labels']:,.0f} µs" for count, floor in part["floor"].items()
    )
    yield (
        "Reading alone the 8-bit codes of all clusters, in order, and of S labels, at random, takes a query "
        f"{floors} on this machine.\n"
    )
    columns = [(count, mode) for count in threads for mode in MODES]
    headings = [f"{_MODE_NAMES[mode]}, {count} thr." for count, mode in columns]
    yield row("", *headings, "index", "label evaluations", "overlap", "recall")
    yield row("---", *["---:"] * (len(columns) + 4))
    for entry in contestants:
        yield row(
            entry["name"],
            *_times(entry, columns),
            f"{entry['nbytes'] / 1e9:.2f} GB",
            f"{entry['label_evaluations']:,.0f}",
            f"{entry['overlap']:.5f}",
            f"{entry['recall']:.3f}",
        )
    references = [entry for name in _REFERENCES for entry in contestants if entry["name"] == name]
    if references:
        names = " / ".join(entry["name"] for entry in references)
        yield f"\nTimes as fast as {names}, the median of the rounds' ratios:\n"
        yield row("", *headings)
        yield row("---", *["---:"] * len(columns))
        for entry in contestants:
            if entry not in references:
                speedups = [
                    " / ".join(f"{_speedup(entry, reference, count, mode):.1f}" for reference in references)
                    for count, mode in columns
                ]
                yield row(entry["name"], *speedups)
    if part["filters"]:
        yield "\nWith filters that allow a random share of the labels, and overlap with the exact search under them:\n"
        yield row("", *headings, "overlap")
        yield row("---", *["---:"] * (len(columns) + 1))
        for entry in part["filters"]:
            yield row(entry["name"], *_times(entry, columns), f"{entry['overlap']:.5f}")
    yield ""


def _times(entry: Mapping[str, Any], columns: Sequence[tuple[int, str]]) -> Iterator[str]:
    for count, mode in columns:
        values = entry["microseconds"][str(count)][mode]
        yield f"{np.median(values):,.0f} ({min(values):,.0f})"


def _speedup(entry: Mapping[str, Any], other: Mapping[str, Any], num_threads: int, mode: str) -> float:
    own, theirs = (np.array(each["microseconds"][str(num_threads)][mode]) for each in (entry, other))
    return float(np.median(theirs / own))


def _curve_table(curve: Sequence[Mapping[str, Any]], num_threads: int) -> Iterator[str]:
    yield row(
        "",
        "B",
        "S",
        "label evaluations",
        f"one query, {num_threads} thr.",
        f"batch, {num_threads} thr.",
        "P@5",
        "R@100",
    )
    yield row("---", *["---:"] * 7)
    for point in curve:
        times = [np.median(point["microseconds"][str(num_threads)][mode]) for mode in MODES]
        yield row(
            point["name"],
            point["work"]["beam_size"],
            f"{point['work']['shortlist_size']:,}",
            f"{point['label_evaluations']:,.0f}",
            *(f"{time:,.0f}" for time in times),
            f"{point['P@5']:.2f}",
            f"{point['R@100']:.2f}",
        )


def _draw(curve: Sequence[Mapping[str, Any]], num_threads: int, path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharex="col", sharey="row", layout="constrained")
    names = list(dict.fromkeys(point["name"] for point in curve))
    for pair, metric in zip(axes, ("P@5", "R@100"), strict=True):
        for axis, mode in zip(pair, MODES, strict=True):
            for name in names:
                points = [point for point in curve if point["name"] == name]
                times = [np.median(point["microseconds"][str(num_threads)][mode]) for point in points]
                axis.plot(times, [point[metric] for point in points], marker="o", markersize=4, label=name)
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
            axis.set_ylabel(f"{metric}, %")
    for axis, mode in zip(axes[1], MODES, strict=True):
        axis.set_xlabel(f"µs a query, {_MODE_NAMES[mode]}, {num_threads} threads")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
