"""Dev data: how good an epoch is, which one is kept, and when a stage has gone on for long enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from elias_idx.config import Config
from elias_idx.data import TrainingSet, is_sparse
from elias_idx.errors import ConfigError
from elias_idx.model import Model
from elias_idx.train.checkpoint import Progress

# Which stands for the mean of these: of few dev texts P@1 alone is chosen by chance.
MEAN, _AVERAGED = "mean", ("P@1", "P@3", "P@5", "R@10")
# What is reported beside the metric that decides.
_KS, _RECALL_KS = (1, 3, 5), (10, 100)


@dataclass(frozen=True)
class Selection:
    """Which epoch of a stage is kept: the best by a metric on dev data; without dev data the last.

    Attributes:
        dev: the dev data.
        metric: such as "P@1"; "mean" is that of P@1, P@3, P@5 and R@10.
        patience: epochs without a better one that end a stage; None for no such end.
        num_threads: of searches.
        last_epochs: the last epoch of some stages, which end there while their learning rates follow the settings'
            number of epochs: so each stage goes as far as another run's best epoch did.
    """

    dev: TrainingSet | None
    metric: str
    patience: int | None
    num_threads: int | None
    last_epochs: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def check(cls, config: Config, train: TrainingSet, dev: TrainingSet | None) -> Selection:
        """The selection that the settings describe.

        Raises:
            ConfigError: the stop needs dev data, or the dev inputs are of another kind.
        """
        if not isinstance(dev, TrainingSet | None):
            raise TypeError(f"dev must be a TrainingSet, got {type(dev).__name__}")
        if dev is None and config.early_stopping is not None:
            raise ConfigError("early_stopping compares epochs on dev data: give dev data, or leave it out")
        if dev is not None and _kind(train) != _kind(dev):
            raise ConfigError(f"the training inputs are {_kind(train)}, but the dev inputs {_kind(dev)}")
        return cls(dev, config.dev_metric, config.early_stopping, config.num_threads)

    def evaluate(self, model: Callable[[], Model]) -> dict[str, float]:
        """The model's metrics on the dev data, in percent; none without dev data."""
        if self.dev is None:
            return {}
        name, k = ("P", 1) if self.metric == MEAN else self.metric.split("@")
        ks, recall_ks = ({*_KS, int(k)}, _RECALL_KS) if name != "R" else (_KS, {*_RECALL_KS, int(k)})
        evaluation = model().evaluate(
            self.dev.inputs,
            self.dev.labels,
            label_names=self.dev.label_names,
            ks=sorted(ks),
            recall_ks=sorted(recall_ks),
            num_threads=self.num_threads,
        )
        return evaluation.metrics

    def best(self, epochs: Sequence[Progress]) -> Progress:
        """The best of one or more epochs of a stage; of equally good ones the first."""
        if self.dev is None:
            return epochs[-1]
        return max(epochs, key=lambda epoch: value_of(self.metric, epoch.metrics))

    def ends_stage(self, epochs: Sequence[Progress], num_epochs: int) -> bool:
        """Whether a stage ends after the given epochs, all that it had so far."""
        if self.patience is None or not epochs:
            return len(epochs) >= num_epochs
        without_better = len(epochs) - self.best(epochs).epochs_done
        return len(epochs) >= num_epochs or without_better >= self.patience


def shown_metrics(metrics: Mapping[str, float], first: str) -> str:
    """Some metrics as a piece of a line."""
    names = dict.fromkeys((first, "P@1", "P@3", "P@5", "R@10", "R@100"))
    return ", ".join(f"{name} {value_of(name, metrics):.2f}" for name in names)


def value_of(metric: str, metrics: Mapping[str, float]) -> float:
    """The value of a metric, or of "mean", among those of an evaluation."""
    return sum(metrics[name] for name in _AVERAGED) / len(_AVERAGED) if metric == MEAN else metrics[metric]


def _kind(data: TrainingSet) -> str:
    if isinstance(data.inputs, np.ndarray):
        return f"embeddings of size {data.inputs.shape[-1]}"
    if is_sparse(data.inputs):
        return f"sparse features of size {data.inputs.shape[1]}"
    return "texts"
