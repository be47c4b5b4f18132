"""Settings are measured as the model predicts with them, compared, chosen and stored."""

import itertools
import re
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from elias_idx import Ensemble, Model
from elias_idx._parts import memory_by_part
from elias_idx.cli.tune import tune
from elias_idx.data import TrainingSet, write_rows
from elias_idx.errors import ConfigError, DataError
from elias_idx.train import train_model
from elias_idx.tune import Grid, Measured, Setting, Sweep, cheapest, pareto_front, sweep
from elias_idx.tune.measure import current_setting, with_setting
from elias_idx.tune.table import lines
from helpers_training import TINY, topic_texts

TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)
DEV_TEXTS, DEV_LABELS = topic_texts(num_topics=12, per_topic=8, seed=1)
# One without labels, which is no text to measure on.
DEV = TrainingSet([*DEV_TEXTS, "the of and"], [*DEV_LABELS, []])
METRICS = ("P@1", "P@5", "R@10", "R@100")
GRID = Grid(beam_sizes=(1, 3, 50), shortlist_sizes=(2, 10))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    train_model(TrainingSet(TEXTS, LABELS), path, replace(TINY, beam_size=3, shortlist_size=10))
    return path


@pytest.fixture(scope="module")
def model(saved):
    return Model.load(saved)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    return train_model(TrainingSet(TEXTS * 4, LABELS * 4), path, replace(TINY, preset="full", num_candidates=5))


@pytest.fixture(scope="module")
def measured(model):
    return sweep(model, DEV, GRID, rounds=1)


def evaluated(model, names=METRICS, **sizes):
    recall_ks = [int(name[2:]) for name in names if name.startswith("R")]
    result = model.evaluate(DEV_TEXTS, DEV_LABELS, ks=(1, 5), recall_ks=recall_ks, **sizes)
    return {name: result.metrics[name] for name in names}


def test_metrics_are_those_of_the_model_with_each_setting(model, measured):
    dtypes, beams, shortlists = ("float32", "bfloat16", "int8"), (1, 3, 8), (2, 10)  # there are 8 clusters
    expected = [Setting(*each, None) for each in itertools.product(dtypes, beams, shortlists)]
    assert [result.setting for result in measured.results] == expected
    for result in measured.results:
        dtype, beam_size, shortlist_size, _ = result.setting
        stored = model.quantize(dtype)
        assert result.metrics == evaluated(stored, beam_size=beam_size, shortlist_size=shortlist_size)
        assert result.nbytes == stored.index.nbytes
        assert result.microseconds > 0
    assert measured.num_texts == len(DEV_TEXTS)
    assert measured.current == Setting("float32", 3, 10, None)


def test_candidates_of_the_fusion_are_tried(fused):
    found = sweep(fused, DEV, replace(GRID, num_candidates=(2, 14), dtypes=("float32",)), k=10, rounds=1)
    # A search for ten labels looks at as many at least.
    assert {result.setting.num_candidates for result in found.results} == {10, 14}
    assert found.current.num_candidates == 10
    for result in found.results:
        assert result.metrics == evaluated(with_setting(fused, result.setting), ("P@1", "P@5", "R@10"))


@pytest.mark.parametrize(
    ("k", "names"), [(1, ["P@1", "R@1"]), (7, ["P@1", "P@5", "R@7"]), (10**6, [*METRICS, "R@1000000"])]
)
def test_metrics_are_of_the_labels_that_are_asked_for(model, k, names):
    found = sweep(model, DEV, Grid((2,), (3,), dtypes=("float32",)), k=k, rounds=1)
    assert [list(result.metrics) for result in found.results] == [names]
    assert found.results[0].metrics["P@1"] == evaluated(model, beam_size=2, shortlist_size=3)["P@1"]


def test_ensembles(model, fused):
    ensemble = Ensemble([model, fused])
    found = sweep(ensemble, DEV, Grid((2,), (3,), dtypes=("int8",)), k=10, rounds=1)
    assert found.current is None  # the members differ
    (first, *_), count = found.results, len(found.results)
    assert count == 2  # fused: as many candidates as are searched for, and all 14 labels
    assert first.metrics == evaluated(with_setting(ensemble, first.setting), ("P@1", "P@5", "R@10"))
    assert first.nbytes == sum(member.quantize("int8").index.nbytes for member in ensemble.members)
    assert current_setting(with_setting(Ensemble([fused, fused]), first.setting), 10) == first.setting


def test_few_texts_and_progress(model):
    told = []
    found = sweep(model, DEV, Grid((2,), (3,)), rounds=2, max_texts=7, on_search=lambda *seen: told.append(seen))
    assert found.num_texts == 7
    assert told == [(number, 9) for number in range(1, 10)]  # three dtypes, once for metrics and twice for time


def test_memory_by_part_is_all_of_it(model, fused):
    parts = memory_by_part([fused.index, model.index])
    assert sum(parts.values()) == fused.index.nbytes + model.index.nbytes
    assert {"label classifiers", "clusters", "adjacency", "label names", "fusion"} <= parts.keys()
    assert "ranker" not in memory_by_part([model.index])


def test_what_can_not_be_measured_is_told(model):
    with pytest.raises(ConfigError, match="models with a fusion"):
        sweep(model, DEV, Grid(num_candidates=(5,)))
    with pytest.raises(DataError, match="knows none of these texts' labels"):
        sweep(model, TrainingSet(["topic1x"], [["new"]]))
    with pytest.raises(ValueError, match="beam_sizes must be at least 1"):
        sweep(model, DEV, Grid(beam_sizes=(0,)))
    with pytest.raises(ValueError, match="can't become float32"):
        sweep(model.quantize("int8"), DEV, Grid(dtypes=("float32",)))


# What is chosen.

VALUES = st.sampled_from([10.0, 10.1, 10.4, 11.0])


def results_of(rows):
    """Results of metrics, times and sizes; each has a beam of its own to be told by."""
    return [
        Measured(Setting("float32", beam, 1, None), dict(zip(METRICS, metrics, strict=True)), microseconds, nbytes)
        for beam, (*metrics, microseconds, nbytes) in enumerate(rows)
    ]


ROWS = st.lists(
    st.tuples(VALUES, VALUES, VALUES, VALUES, st.sampled_from([100.0, 200.0, 204.9, 300.0]), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)


@given(ROWS)
def test_the_front_is_what_no_other_beats(rows):
    results = results_of(rows)
    front = pareto_front(results)
    costs = {
        result.setting.beam_size: (*(-x for x in row[:4]), row[4], row[5])
        for result, row in zip(results, rows, strict=True)
    }

    def beats(one, other):
        return one != other and all(x <= y for x, y in zip(one, other, strict=True))

    expected = {beam for beam, own in costs.items() if not any(beats(other, own) for other in costs.values())}
    assert {result.setting.beam_size for result in front} == expected
    assert [result.microseconds for result in front] == sorted(result.microseconds for result in front)


def test_times_that_differ_by_chance_are_equal():
    rows = [(10, 10, 10, 10, 100.0, 1), (10, 10, 10, 10, 100.1, 1), (10, 10, 10.001, 10, 130.0, 1)]
    assert [result.setting.beam_size for result in pareto_front(results_of(rows))] == [0, 1]


@given(ROWS, st.sampled_from([0.0, 0.2, 5.0]), st.sampled_from(["time", "memory"]))
def test_the_cheapest_is_nearly_as_good_and_no_such_setting_is_cheaper(rows, tolerance, by):
    results = results_of(rows)
    chosen = cheapest(results, tolerance, by)
    best = max(sum(result.metrics.values()) for result in results)
    assert sum(chosen.metrics.values()) >= best - len(METRICS) * tolerance - 1e-9
    for other in results:
        if all(other.metrics[name] >= chosen.metrics[name] for name in METRICS):
            if by == "memory":
                assert (other.nbytes, other.microseconds) >= (chosen.nbytes, chosen.microseconds)
            else:
                assert other.microseconds * 1.05 >= chosen.microseconds
                assert other.nbytes >= chosen.nbytes or other.microseconds > chosen.microseconds


def test_of_about_as_fast_settings_the_smallest_is_taken():
    results = results_of([(10, 10, 10, 10, 100.0, 9), (10, 10, 10, 10, 104.0, 2), (10, 10, 10, 10, 140.0, 1)])
    assert cheapest(results).setting.beam_size == 1
    assert cheapest(results, by="memory").setting.beam_size == 2
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        cheapest(results, float("nan"))


def test_the_table_has_the_front_the_current_and_the_recommended():
    results = results_of([(10, 10, 10, 10, 100.0, 2**21), (9, 9, 9, 9, 200.0, 2**21), (9, 9, 9, 9, 300.0, 2**21)])
    settings = [result.setting for result in results]
    found = Sweep(tuple(results), settings[1], {"float32": {"clusters": 2**20}}, 12.3, 50, 1, 100)
    shown = lines(found, settings[0])
    rows = [line for line in shown if line.startswith("float32")]
    assert [row.split() for row in rows] == [
        ["float32", "0", "1", *4 * ["10.00"], "100", "2.0", "*", "recommended"],
        ["float32", "1", "1", *4 * ["9.00"], "200", "2.0", "now"],
    ]
    assert len([line for line in lines(found, settings[0], every=True) if line.startswith("float32")]) == 3
    assert "MiB as float32: clusters 1.0" in shown


# The command.


@pytest.fixture
def dev(tmp_path):
    path = tmp_path / "dev.jsonl"
    write_rows(path, ({"text": text, "labels": row} for text, row in zip(DEV_TEXTS, DEV_LABELS, strict=True)))
    return path


def run(*arguments, expect=0):
    result = CliRunner().invoke(tune, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result


def test_the_command_prints_draws_and_stores(saved, dev, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    before = Model.load(copy)
    grid = ["--beam-sizes", "2,8", "--shortlist-sizes", "12", "--rounds", "1", "--cheapest", "memory"]
    result = run(copy, dev, *grid, "--tolerance", 100, "--plot", tmp_path / "drawn")
    assert re.search(r"^int8 .*recommended$", result.stdout, re.MULTILINE)
    assert "rests on chance" not in result.stderr
    few = run(copy, dev, *grid, "--max-texts", 20)
    assert "one text makes 5.00 points of P@1, more than --tolerance 0.2" in few.stderr
    assert current_setting(Model.load(copy), 100) == current_setting(before, 100)  # nothing is stored yet
    assert "R@100" in (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")

    run(copy, dev, *grid, "--tolerance", 100, "--apply")
    stored = Model.load(copy)
    stored.verify()
    dtype, beam_size, shortlist_size, _ = current_setting(stored, 100)
    assert (dtype, shortlist_size) == ("int8", 12)
    assert beam_size in (2, 8)
    expected = before.quantize("int8").predict(DEV_TEXTS, beam_size=beam_size, shortlist_size=12)
    assert stored.predict(DEV_TEXTS) == expected

    for code in (0, 1):  # the second time there is something
        run(copy, dev, "--beam-sizes", 4, "--shortlist-sizes", 3, "--apply", "--out", tmp_path / "out", expect=code)
    assert current_setting(Model.load(tmp_path / "out"), 100)[1:3] == (4, 3)


def test_a_calibrated_model_stays_calibrated(saved, dev, tmp_path):
    Model.load(saved).calibrate(DEV).save(tmp_path / "model")
    result = run(tmp_path / "model", dev, "--beam-sizes", 2, "--shortlist-sizes", 9, "--rounds", 1, "--apply")
    assert "calibrate it again" in result.stderr
    assert Model.load(tmp_path / "model").has_calibration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "somewhere"], "give it, too"),
        (["--dtypes", "float32,float8"], "must be some of float32, bfloat16"),
        (["--beam-sizes", "2,x"], "must be positive whole numbers"),
        (["--num-candidates", "5"], "models with a fusion"),
        (["--plot", "missing/drawn"], "create it first"),
    ],
)
def test_bad_arguments(saved, dev, arguments, message):
    result = CliRunner().invoke(tune, [str(saved), str(dev), *arguments])
    assert result.exit_code != 0
    assert message in result.output


def test_times_take_turns(model, monkeypatch):
    """A machine that is slow in one round is so for all settings."""
    order = []
    original = Model._search_for

    def searched(self, queries, k, **options):
        order.append(options["beam_size"])
        return original(self, queries, k, **options)

    monkeypatch.setattr(Model, "_search_for", searched)
    sweep(model, DEV, Grid((1, 2, 3), (5,), dtypes=("float32",)), rounds=8)
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert len(rounds) == 9  # one for the metrics
    assert all(sorted(each) == [1, 2, 3] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 2


def test_the_least_time_of_each_block_counts(model, monkeypatch):
    """What disturbs one search of many changes nothing."""
    monkeypatch.setattr("elias_idx.tune.measure._BLOCK", 20)
    now, calls = [0.0], itertools.count()
    original = Model._search_for

    def searched(self, queries, k, **options):
        # The first is for the metrics; then there are three rounds of five blocks, of which some are disturbed.
        turn, block = divmod(next(calls) - 1, 5)
        now[0] += len(queries[0]) * 1e-3 + (5.0 if block % 3 == turn else 0.0)
        return original(self, queries, k, **options)

    monkeypatch.setattr(Model, "_search_for", searched)
    monkeypatch.setattr("elias_idx.tune.measure.perf_counter", lambda: now[0])
    found = sweep(model, DEV, Grid((1,), (5,), dtypes=("float32",)), rounds=3)
    assert found.results[0].microseconds == pytest.approx(1000)
