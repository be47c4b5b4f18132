"""A long mixed load on indexes that are saved over and loaded again meanwhile: memory stays, and no answer is wrong.

    make endurance
    python tests/endurance.py --seconds 600 --pause 0.02

Threads search float, rounded, quantised and fused indexes and an ensemble with random batches, options and filters; now
and then one saves another version over an index's folder, or loads what is there. All results must be well-formed, and
as many as one thread can check are held to the NumPy oracle. Memory, open files and mappings are sampled: in the
second half of the time they must not grow. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.sparse as sp

import oracle
import oracle_fusion
from elias_idx import EVIDENCE, Index, SearchResult
from elias_idx.ensemble_index import MIN_DEPTH, EnsembleIndex
from helpers_index import build, tolerance_of
from oracle import Array, Parts
from oracle_fusion import FusionParts

VERSIONS = 2
ALPHA = 4
"""The α of the first version; the second one's is 1 more, which tells them apart."""
QUERIES = 256
TREES = oracle_fusion.random_trees()
LINEAR = np.random.default_rng(0).normal(0, 0.05, len(EVIDENCE)).astype(np.float32)
BIAS = -0.5
ROUNDING = 1e-4
"""By how much, relatively, evidence may be off from the oracle's."""
GROWTH = {"rss": 24 << 20, "open_files": 2, "mappings": 40, "threads": 1}
"""By how much each may grow in the second half of the time."""


@dataclass
class Member:
    """One version of an index, and what the oracle needs to know of it."""

    index: Index
    parts: Parts
    names: Array
    """Of its labels, which are numbers."""
    fusion: FusionParts | None = None


@dataclass
class Slot:
    """An index that is searched: its versions, its folder, and those that are in use now, by version."""

    name: str
    versions: list[Member]
    folder: Path
    current: tuple[Index, int]

    def load(self, rng: np.random.Generator) -> None:
        """Takes the folder's index, whichever version that is."""
        index = Index.load(self.folder, mmap=rng.random() < 0.6, prefault=rng.random() < 0.2)
        if rng.random() < 0.2:
            index.verify()
        self.current = index, int(index.alpha) - ALPHA

    def save(self, rng: np.random.Generator) -> None:
        self.versions[rng.integers(VERSIONS)].index.save(self.folder, overwrite=True)


@dataclass(frozen=True)
class Question:
    """A query, how it was searched for, and what was found."""

    kind: str
    members: list[Member]
    number: int
    options: dict[str, Any]
    allowed: Array | None
    found: SearchResult


@dataclass
class Outcome:
    """What came of the load, as it is written to a file."""

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    def count(self, **what: int) -> None:
        # Plain additions to a counter aren't atomic.
        with _COUNTING:
            self.counts.update(what)

    def fail(self, message: str) -> None:
        self.failures.append(message)


_COUNTING = threading.Lock()


def make_parts(seed: int, num_labels: int, dim: int = 64) -> Parts:
    """An index's parts, whose scores are spread over what is usual; seeds of a slot's versions follow each other."""
    parts = oracle.random_parts(
        seed, num_queries=QUERIES, dim=dim, num_clusters=64, num_labels=num_labels, labels_per_cluster=num_labels // 20
    )
    small = np.float32(2 / np.sqrt(dim))
    return replace(
        parts,
        cluster_weights=parts.cluster_weights * small,
        label_weights=parts.label_weights * small,
        label_bias=parts.label_bias - 2,
        alpha=ALPHA + seed % VERSIONS,
    )


def make_slots(folder: Path, num_labels: int) -> list[Slot]:
    """Saved indexes of every kind."""
    slots = []
    for number, kind in enumerate(KINDS):
        # The ensemble's members have the same names in another order.
        names = np.arange(num_labels) if number == 0 else np.random.default_rng(number).permutation(num_labels)
        make = fused_member if kind == "fused" else dense_member
        versions = [make(VERSIONS * number + version, names, **KINDS[kind]) for version in range(VERSIONS)]
        versions[0].index.save(folder / kind)
        slots.append(Slot(kind, versions, folder / kind, (versions[0].index, 0)))
    return slots


KINDS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32", "screen": True},
    "bfloat16": {"dtype": "bfloat16", "screen": True},
    "float16": {"dtype": "float16", "screen": False},
    "int8": {"dtype": "int8", "screen": True},
    "fused": {},
}


def dense_member(seed: int, names: Array, **stored: Any) -> Member:
    parts = make_parts(seed, len(names))
    index = build(parts, label_names=[str(name) for name in names]).quantize(**stored)
    return Member(index, replace(parts, label_weights=index.label_rows(np.arange(len(names)))), names)


def fused_member(seed: int, names: Array) -> Member:
    few = names[: len(names) // 20]
    parts = make_parts(seed, len(few), dim=32)
    fusion = oracle_fusion.random_fusion(parts, seed, num_features=200, num_texts=300, num_candidates=20)
    index = fusion.add_to(build(parts, label_names=[str(name) for name in few], screen=False))
    return Member(index.with_fusion(LINEAR, BIAS, TREES), parts, few, fusion)


class Load:
    """The threads that search, and the one that checks."""

    def __init__(self, slots: list[Slot], pause: float, outcome: Outcome) -> None:
        self.slots, self.pause, self.outcome = slots, pause, outcome
        self.stop = threading.Event()
        self.questions: queue.Queue[Question] = queue.Queue(maxsize=8)

    @contextmanager
    def run(self, num_threads: int) -> Iterator[None]:
        """Threads at work within the block."""
        threads = [
            threading.Thread(target=self._until_stopped, args=(self._work, np.random.default_rng(seed)))
            for seed in range(num_threads)
        ]
        threads.append(threading.Thread(target=self._until_stopped, args=(self._check, None)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def _until_stopped(self, work: Callable[[Any], None], rng: Any) -> None:
        while not self.stop.is_set():
            try:
                work(rng)
            except Exception:
                self.outcome.fail(traceback.format_exc())
                self.stop.wait(0.1)

    def _work(self, rng: np.random.Generator) -> None:
        slot = self.slots[rng.integers(len(self.slots))]
        action = rng.random()
        if action < 0.01:
            slot.save(rng)
            self.outcome.count(saves=1)
        elif action < 0.05:
            slot.load(rng)
            self.outcome.count(loads=1)
        elif action < 0.15:
            self._ask(rng, "ensemble", self.slots[:2])
        else:
            self._ask(rng, slot.name, [slot])
        if self.pause:
            self.stop.wait(rng.exponential(self.pause))

    def _ask(self, rng: np.random.Generator, kind: str, slots: list[Slot]) -> None:
        """Searches with random options, and hands one of the answers to the thread that checks, if it is idle."""
        held = [slot.current for slot in slots]
        members = [slot.versions[version] for slot, (_, version) in zip(slots, held, strict=True)]
        searched = held[0][0] if len(held) == 1 else EnsembleIndex([index for index, _ in held])
        # Members' queries differ; the first one's are asked.
        numbers = rng.integers(QUERIES, size=int(min(2 ** rng.uniform(0, 9), 400)))
        options = random_options(rng)
        given, allowed = random_filter(rng, searched, len(numbers))
        parts, fusion = members[0].parts, members[0].fusion
        sparse = {}
        if fusion is not None and rng.random() < 0.8:
            sparse = {"sparse": sp.csr_matrix(fusion.sparse[numbers])}
        threads = [1, 2, None][rng.integers(3)]
        found = searched.search(parts.queries[numbers], num_threads=threads, filter=given, **options, **sparse)
        check_form(found, options, allowed, searched.num_labels)
        self.outcome.count(searches=1, queries=len(numbers), **{kind: 1})
        at = int(rng.integers(len(numbers)))
        answer = SearchResult(found.labels[at : at + 1], found.scores[at : at + 1])
        if not sparse:
            members = [replace(member, fusion=None) for member in members]
        question = Question(kind, members, int(numbers[at]), options, allowed and allowed[at], answer)
        # What the thread that checks has no time for is dropped.
        with suppress(queue.Full):
            self.questions.put_nowait(question)

    def _check(self, _: None) -> None:
        try:
            question = self.questions.get(timeout=0.2)
        except queue.Empty:
            return
        self.outcome.count(checked=1)
        expected, tolerance = answer_of(question)
        try:
            oracle.assert_same_results(question.found, expected, tolerance=tolerance)
        except AssertionError as error:
            if is_close(question, expected, tolerance):
                self.outcome.count(too_close_to_tell=1)
            else:
                self.outcome.fail(f"{question.kind}, query {question.number}, {question.options}: {error}")


def random_options(rng: np.random.Generator) -> dict[str, Any]:
    options: dict[str, Any] = {
        "k": int(2 ** rng.uniform(0, 7)),
        "beam_size": int(2 ** rng.uniform(0, 6.5)),
        "shortlist_size": int(2 ** rng.uniform(3, 12)),
    }
    if rng.random() < 0.2:
        options["min_score"] = float(10 ** rng.uniform(-4, -0.5))
    return options


def random_filter(
    rng: np.random.Generator, index: Index | EnsembleIndex, num_queries: int
) -> tuple[Any, list[Array] | None]:
    """A filter in any of its forms, and what it allows: a mask [L] for each query."""
    form = rng.integers(8)
    if form >= 5:
        return None, None
    share = 10 ** rng.uniform(-3, 0)
    if form == 4:
        rows = [rng.random(index.num_labels) < share for _ in range(min(num_queries, 4))]
        masks = [rows[at % len(rows)] for at in range(num_queries)]
        if rng.random() < 0.5:
            filters = [index.label_filter(row) for row in rows]
            return [filters[at % len(rows)] for at in range(num_queries)], masks
        return sp.csr_matrix(np.stack(masks)), masks
    mask = rng.random(index.num_labels) < share
    ids = np.flatnonzero(mask)
    if form == 0:
        given: Any = ids
    elif form == 1:
        given = mask
    elif form == 2:
        given = index.label_filter(ids)
    else:
        given = list(index.names(ids[:200]))
        mask = np.isin(np.arange(index.num_labels), ids[:200])
    return given, [mask] * num_queries


def check_form(found: SearchResult, options: dict[str, Any], allowed: list[Array] | None, num_labels: int) -> None:
    """What holds of any results: their order, range, padding, and that they obey the options."""
    labels, scores = found
    there = labels >= 0
    assert labels.shape[1] == options["k"]
    assert (labels < num_labels).all()
    assert (there[:, :-1] >= there[:, 1:]).all(), "padding comes last"
    assert (scores[:, :-1] >= scores[:, 1:]).all(), "scores descend"
    assert ((scores >= 0) & (scores <= 1)).all()
    assert ((labels == -1) & (scores == 0))[~there].all()
    assert (scores[there] >= options.get("min_score", 0)).all()
    if allowed is not None:
        assert all(mask[row[row >= 0]].all() for mask, row in zip(allowed, labels, strict=True))


def answer_of(question: Question) -> tuple[oracle.Results, float]:
    """What the oracle finds, and how far off scores may be."""
    k, least = question.options["k"], question.options.get("min_score", 0.0)
    if len(question.members) > 1:
        scores, rounding = mean_scores(question)
    elif question.members[0].fusion is not None:
        scores, rounding = fused_scores(question), 1e-3
    else:
        scores, rounding = dense_scores(question, question.members[0])
    top = oracle.best(scores, (scores >= 0) & (scores >= least), k)
    labels, best = oracle.padded(top, scores[top], k)
    # Queries are codes, too, for an int8 index.
    coded = any(member.index.dtype == "int8" for member in question.members)
    tolerance = max(5e-3 if coded else 0, *(tolerance_of(member.index) for member in question.members))
    return oracle.Results(labels[None], best[None], scores[None], np.array([rounding])), tolerance


def query_of(question: Question) -> Array:
    return question.members[0].parts.queries[question.number]


def allowed_of(question: Question, member: Member) -> Array | None:
    """The mask in the member's own labels."""
    if question.allowed is None or len(question.members) == 1:
        return question.allowed
    return question.allowed[member.names]


def dense_scores(question: Question, member: Member) -> tuple[Array, float]:
    """The scores [L] of a member's dense search, −1 for labels that it doesn't reach, and their rounding."""
    sizes = question.options["beam_size"], question.options["shortlist_size"]
    allowed = [allowed_of(question, member)]
    found = oracle.search(member.parts, query_of(question)[None], 1, *sizes, allowed)
    return found.all_scores[0], float(found.rounding[0])


def mean_scores(question: Question) -> tuple[Array, float]:
    """The means of the members' scores, of as many of their best labels as an ensemble looks at."""
    depth = max(MIN_DEPTH, 2 * question.options["k"])
    total, worst = np.full(len(question.members[0].names), -1.0), 0.0
    for member in question.members:
        scores, rounding = dense_scores(question, member)
        top = oracle.best(scores, scores >= 0, depth)
        labels = member.names[top]
        total[labels] = np.maximum(total[labels], 0) + scores[top] / len(question.members)
        worst = max(worst, rounding)
    return total, worst


def fused_scores(question: Question) -> Array:
    """The scores [L] of an index with fusion, −1 for labels that are no candidates."""
    found = candidates_of(question)
    scores = np.full(len(question.members[0].names), -1.0)
    scores[found.labels] = oracle_fusion.scores(found, LINEAR, BIAS, TREES)
    return scores


def candidates_of(question: Question) -> oracle_fusion.Candidates:
    member = question.members[0]
    assert member.fusion is not None
    return oracle_fusion.evidence(
        member.parts,
        member.fusion,
        question.number,
        beam_size=question.options["beam_size"],
        shortlist_size=question.options["shortlist_size"],
        num_candidates=max(question.options["k"], member.fusion.num_candidates),
        allowed=question.allowed,
    )


def is_close(question: Question, expected: oracle.Results, tolerance: float) -> bool:
    """Whether rounding alone could decide what is in the beam, in the shortlist or among the candidates.

    Or by which way trees are left, or what the least score leaves out.
    """
    least = question.options.get("min_score", 0.0)
    if (np.abs(expected.all_scores - least) <= tolerance * least).any():
        return True
    if any(is_cut_closely(question, member, tolerance) for member in question.members):
        return True
    if question.members[0].fusion is None:
        return False
    values = candidates_of(question).values
    splits = TREES.columns >= 0
    gaps = values[:, TREES.columns[splits]] - TREES.thresholds[splits]
    return bool((np.abs(gaps) <= ROUNDING).any())


def is_cut_closely(question: Question, member: Member, tolerance: float) -> bool:
    """Whether the last one that a step of the dense search keeps and the first one that it drops are nearly equal."""
    query, allowed = query_of(question).astype(np.float64), allowed_of(question, member)
    beam_size, shortlist_size, k = (question.options[name] for name in ("beam_size", "shortlist_size", "k"))
    paths, reached = oracle.path_scores(member.parts, query, beam_size, shortlist_size, allowed)
    final, _ = dense_scores(question, member)
    depth = max(MIN_DEPTH, 2 * k) if member.fusion is None else max(k, member.fusion.num_candidates)
    return (
        is_close_at(oracle.cluster_scores(member.parts, query), beam_size, tolerance)
        or is_close_at(paths[reached], shortlist_size, tolerance)
        or is_close_at(final[final >= 0], depth, tolerance)
    )


def is_close_at(scores: Array, count: int, tolerance: float) -> bool:
    """Whether the two scores at a cut are different, but hardly."""
    if count >= len(scores):
        return False
    kept, dropped = -np.sort(-scores)[count - 1 : count + 1]
    return bool(kept - dropped <= tolerance * kept)


def sample() -> dict[str, float]:
    """What the process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rss": 1024 * int(status["VmRSS"].split()[0]),
        "anonymous": 1024 * int(status["RssAnon"].split()[0]),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "mappings": Path("/proc/self/maps").read_text().count("\n"),
        "threads": int(status["Threads"]),
    }


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """By how much the last quarter's mean of each quantity exceeds that of the quarter before it."""
    quarter = max(len(samples) // 4, 1)
    before, last = samples[-2 * quarter : -quarter], samples[-quarter:]
    if not before:
        return {}
    return {name: float(np.mean([s[name] for s in last]) - np.mean([s[name] for s in before])) for name in GROWTH}


def endure(
    folder: Path,
    *,
    seconds: float,
    num_threads: int,
    num_labels: int,
    pause: float,
    enough: Callable[[Outcome], bool] = lambda outcome: len(outcome.failures) >= 20,
) -> Outcome:
    """Runs the load for so long, or until it is `enough`, in a folder for the indexes, and says what came of it."""
    outcome = Outcome()
    load = Load(make_slots(folder, num_labels), pause, outcome)
    start = time.monotonic()
    with load.run(num_threads):
        while (passed := time.monotonic() - start) < seconds and not enough(outcome):
            load.stop.wait(min(1.0, seconds - passed))
            outcome.samples.append({"seconds": round(time.monotonic() - start, 1), **sample()})
    outcome.seconds = time.monotonic() - start
    return outcome


@click.command(context_settings={"show_default": True})
@click.option("--seconds", default=3600.0, help="how long; memory is judged from ten minutes on")
@click.option("--threads", default=8)
@click.option("--labels", default=20_000, help="L; the index with fusion has a twentieth")
@click.option("--pause", default=0.0, help="mean seconds that a thread waits between two searches")
@click.option("--out", type=click.Path(path_type=Path), default=Path("artifacts/endurance.json"))
def main(seconds: float, threads: int, labels: int, pause: float, out: Path) -> None:
    """Searches, loads and saves for a long time, checking answers and memory."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = endure(Path(folder), seconds=seconds, num_threads=threads, num_labels=labels, pause=pause)
    grown = growth(outcome.samples)
    if seconds >= 600:
        outcome.failures += [
            f"{name} grew by {grown[name]:,.0f} in the last quarter, more than {bound:,}"
            for name, bound in GROWTH.items()
            if grown[name] > bound
        ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**vars(outcome), "growth": grown}, indent=1) + "\n")
    click.echo(f"{outcome.seconds:,.0f} s: {', '.join(f'{n:,} {what}' for what, n in sorted(outcome.counts.items()))}")
    for at in np.linspace(0, len(outcome.samples) - 1, 7).astype(int):
        now = outcome.samples[at]
        click.echo(
            f"{now['seconds']:7,.0f} s: {now['rss'] / 2**20:,.1f} MiB ({now['anonymous'] / 2**20:,.1f} anonymous), "
            f"{now['open_files']} open files, {now['mappings']} mappings, {now['threads']} threads"
        )
    click.echo("growth: " + ", ".join(f"{name} {amount:+,.0f}" for name, amount in grown.items()))
    for message in outcome.failures:
        click.echo(message, err=True)
    click.echo(f"{len(outcome.failures)} failures; details are in {out}")
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
