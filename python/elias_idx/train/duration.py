"""How long a training run takes, about, before it starts.

N texts, E features of all texts together, D dimensions, S shortlist in training, L labels, Q held-out texts.
"""

from __future__ import annotations

from elias_idx._wording import counted
from elias_idx.config import Config
from elias_idx.train import distributed
from elias_idx.train.model_sizes import ModelSizes
from elias_idx.train.parts import SHORTLIST

# Seconds of one core, fitted to benchmarks/train_step.py and to what the runs of benchmarks/accuracy.py took.
# A step, for a text's shortlisted label, and for a number of the rows that it goes over.
_PAIR, _NUMBER = 1.4e-7, 5.9e-10
# Features, for a character of their text, and a search, for a label that it scores.
_CHARACTER, _SCORED = 2.2e-7, 5e-8
# The ranker, for a feature of an example, and the fusion, for a candidate of the dense search.
_EXAMPLE_FEATURE, _CANDIDATE = 3e-9, 5e-5
# Of that time, what several threads share.
_SHARED = 0.6


def expected_seconds(
    config: Config, sizes: ModelSizes, *, num_trainings: int = 1, num_judged: int = 0, num_threads: int = 1
) -> float:
    """About how long a run takes, unless there is a transformer.

    Args:
        config: the settings, all filled in; its preset says whether there is a fusion.
        sizes: of the training data.
        num_trainings: how many times the dense model is trained, and what is added to it.
        num_judged: held-out texts or dev texts, on which each epoch of the first training is evaluated.
        num_threads: that it runs on.
    """
    training = _dense(config, sizes) + _features(sizes, sizes.num_texts)
    judged_once = _features(sizes, num_judged) + _searches(config, sizes, num_judged)
    judging = (config.stage1_epochs + config.stage2_epochs) * judged_once
    if config.preset == "full":
        training += _features(sizes, sizes.num_texts) + _searches(config, sizes, sizes.num_texts) + _ranker(sizes)
        judging += _CANDIDATE * config.num_candidates * num_judged
    return (num_trainings * training + judging) * (1 - _SHARED + _SHARED / num_threads)


def expected(config: Config, sizes: ModelSizes, num_trainings: int, num_judged: int) -> str:
    """The same for the run's threads, in words."""
    usable = distributed.usable_cpus()
    num_threads = min(usable, config.num_threads or usable)
    counts = {"num_trainings": num_trainings, "num_judged": num_judged, "num_threads": num_threads}
    minutes = expected_seconds(config, sizes, **counts) / 60
    if minutes < 1:
        return "less than a minute"
    on = f"on {counted(num_threads, 'thread')}"
    return f"about {minutes:.0f} min {on}" if minutes < 120 else f"about {minutes / 60:,.0f} h {on}"


def _dense(config: Config, sizes: ModelSizes) -> float:
    """Both stages: a text goes over its shortlist, and over the rows of that and of its features, D numbers each."""
    dim, shortlist = sizes.input_dim or config.dim, min(config.train_shortlist_size, sizes.num_labels)
    rows = shortlist + 1.4 * sizes.num_entries / sizes.num_texts
    epochs = config.stage1_epochs + config.stage2_epochs
    return sizes.num_texts * epochs * (_PAIR * shortlist + _NUMBER * dim * rows)


def _features(sizes: ModelSizes, num_texts: int) -> float:
    return _CHARACTER * sizes.text_bytes * num_texts / sizes.num_texts


def _searches(config: Config, sizes: ModelSizes, num_texts: int) -> float:
    return _SCORED * min(config.shortlist_size, sizes.num_labels) * num_texts


def _ranker(sizes: ModelSizes) -> float:
    """A text is an example of its own and of its shortlist's labels."""
    examples = sizes.num_texts * min(SHORTLIST, sizes.num_labels) + sizes.num_pairs
    return _EXAMPLE_FEATURE * examples * sizes.num_entries / sizes.num_texts
