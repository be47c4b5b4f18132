"""The training of the full preset: the dense model, and what makes it better on texts that it was not trained on.

    the dense model of most texts → ranker, neighbours, co-occurrence → fusion, fitted on the held-out texts
    the dense model of all texts, as many epochs → ranker, neighbours, co-occurrence → the same fusion → the model

Dev data take the held-out texts' place; then there is one dense model, of all texts. What is finished is kept in the
run's folder, where each dense training has a folder of its own, and is not made again after an interruption.

Q held-out texts, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from elias_idx._wording import counted
from elias_idx.config import Config
from elias_idx.data import LabelVocabulary, TrainingSet
from elias_idx.files import replacing
from elias_idx.model import Model
from elias_idx.train import distributed, hold_out
from elias_idx.train.clustering import Clusters
from elias_idx.train.dense import train_dense
from elias_idx.train.fusion import Fusion, fit_fusion
from elias_idx.train.logs import TrainingLog
from elias_idx.train.parts import Parts, embedded
from elias_idx.train.ranker import SparseRanker
from elias_idx.train.run_folder import RunFolder, describe_run, finished_model
from elias_idx.train.selection import Selection
from elias_idx.train.stages import EpochResult
from elias_idx.train.steps import Steps, shown_metrics

_FUSION = "fusion.safetensors"
# Epochs without a better one that a first training's stages take at least before they end.
_PATIENCE = 3


@dataclass(frozen=True)
class FullTraining:
    """The full preset's training.

    Attributes:
        data: all texts to train on.
        rest: those of them that are not held out, with those of the labels that have texts there; None with dev data.
        judge: the held-out texts or dev data, by which epochs and fusion are chosen.
        config: the settings, with C and β.
        given: the initial clusters' labels; None to make clusters.
        run: the run's folder.
        selection: which epochs are kept, by the judge.
        steps: says what is done.
        log_dir: of TensorBoard's files, a folder for each dense training; None for none.
        on_epoch: called after every epoch of each dense training.
    """

    data: TrainingSet
    rest: TrainingSet | None
    judge: TrainingSet
    config: Config
    given: Clusters | None
    run: RunFolder
    selection: Selection
    steps: Steps
    log_dir: Path | None
    on_epoch: Callable[[EpochResult], None] | None

    def train(self) -> Callable[[], Model]:
        """Trains all of it, and gives a function that makes the model, in the first process."""
        if not self.run.goes_on:
            distributed.from_first(self.run.start)
        try:
            return self._train()
        except Exception:
            # What is wrong with data or settings shows before there is anything to keep.
            if distributed.is_first():
                self.run.remove_if_bare()
            raise

    def _train(self) -> Callable[[], Model]:
        if self.rest is None:
            dense = self._dense("final", self.data, self.selection)
            return lambda: self._fused(dense, None)
        fusion, epochs = self._of_most()
        selection = replace(self.selection, dev=None, patience=None, last_epochs=epochs)
        final = self._dense("final", self.data, selection)
        return lambda: self._fused(final, fusion)

    def _of_most(self) -> tuple[Fusion, dict[int, int]]:
        """The fusion and the best epoch of each stage, by the held-out texts; the model of the rest is let go."""
        assert self.rest is not None
        first = self._dense("first", self.rest, self._patient)
        fusion = distributed.from_first(lambda: self._fusion(first))
        return fusion, {int(stage): epoch for stage, epoch in first.report["epochs"].items()}

    @property
    def _patient(self) -> Selection:
        """The first training's: its stages end when a third of their epochs, but three at least, were no better."""
        if self.selection.patience is not None:
            return self.selection
        num_epochs = max(self.config.stage1_epochs, self.config.stage2_epochs)
        return replace(self.selection, patience=max(_PATIENCE, -(-num_epochs // 3)))

    def _dense(self, name: str, data: TrainingSet, selection: Selection) -> Model:
        """The dense model of the given texts."""
        config, given = self._clustered(data)
        description = describe_run(config, data, selection.dev, given)
        log_dir = None if self.log_dir is None else self.log_dir / name
        with self.steps.step(f"dense model of {counted(len(data), 'text')}"), TrainingLog(log_dir) as log:
            model = finished_model(
                self.run.path / name,
                "resume",
                description,
                lambda run: train_dense(data, config, given, run, selection, log, self.on_epoch),
            )
        if metrics := model.report["metrics"]:
            self.steps.say(f"dense model on {self._judges}: {shown_metrics(metrics)}")
        return model

    def _clustered(self, data: TrainingSet) -> tuple[Config, Clusters | None]:
        """The settings and given clusters for texts that may lack some labels: no more clusters than are left."""
        if self.given is None:
            assert self.config.num_clusters is not None
            return replace(self.config, num_clusters=min(self.config.num_clusters, len(data.label_names))), None
        names = set(data.label_names)
        ids = np.cumsum([name in names for name in self.data.label_names]) - 1
        kept = [cluster[[self.data.label_names[label] in names for label in cluster]] for cluster in self.given]
        given = [ids[cluster] for cluster in kept if len(cluster)]
        return replace(self.config, num_clusters=len(given)), given

    def _fusion(self, first: Model) -> Fusion:
        """The fusion for the final model, fitted on held-out texts with the parts of the texts that are not."""
        assert self.rest is not None
        if (self.run.path / _FUSION).exists():
            self.steps.finished(f"sparse ranker of {counted(len(self.rest), 'text')}")
            return self._kept_fusion()
        parts = Parts.of(first, self.rest, self.config)
        return self._fitted(parts, self._ranker("first", parts, self.rest))

    def _fused(self, dense: Model, fusion: Fusion | None) -> Model:
        """The model of all texts; its fusion is fitted on dev data if it is not there yet."""
        parts = Parts.of(dense, self.data, self.config)
        ranker = self._ranker("final", parts, self.data) if fusion is None or fusion.uses_ranker else None
        fusion = fusion or self._fitted(parts, ranker)
        index = parts.index(
            ranker if fusion.uses_ranker else None,
            neighbours=fusion.uses_neighbours,
            cooccurrence=fusion.uses_cooccurrence,
        )
        return replace(
            parts.model,
            index=index.with_fusion(fusion.linear, fusion.bias, fusion.trees),
            settings=self.run.description,
            report={"epochs": dense.report["epochs"], "num_held_out": len(self.judge), **fusion.report},
        )

    def _ranker(self, name: str, parts: Parts, data: TrainingSet) -> SparseRanker:
        with self.steps.step(f"sparse ranker of {counted(len(data), 'text')}"):
            return parts.ranker(data.inputs, self.run.path / f"{name}-ranker.safetensors")

    def _fitted(self, parts: Parts, ranker: SparseRanker | None) -> Fusion:
        """The fusion that is best on the held-out texts; kept in a file, from which it comes back."""
        if (path := self.run.path / _FUSION).exists():
            return self._kept_fusion()
        judge, config = self._few_of_judge(), self.config
        with self.steps.step(self._fusion_title):
            sparse = parts.features.transform(judge.inputs, config.num_threads)
            embeddings = embedded(parts.model, judge.inputs, sparse, config)
            index = parts.index(ranker, neighbours=True, cooccurrence=True)
            evidence = index.evidence(embeddings, sparse, num_threads=config.num_threads)
            # By the model's own labels: a first one may lack some that only held-out texts have.
            assert index.label_names is not None
            labels, _ = LabelVocabulary(index.label_names).renumber(judge.labels, judge.label_names)
            fusion = fit_fusion(evidence, labels, seed=config.seed)
            with replacing(path) as partial:
                fusion.save(partial)
        self._say_fusion(fusion)
        return fusion

    def _kept_fusion(self) -> Fusion:
        """The fusion that was fitted before an interruption; what was said then is said again."""
        self.steps.finished(self._fusion_title)
        fusion = Fusion.load(self.run.path / _FUSION)
        self._say_fusion(fusion)
        return fusion

    def _say_fusion(self, fusion: Fusion) -> None:
        for line in fusion.lines(self._judges):
            self.steps.say(line)

    @property
    def _fusion_title(self) -> str:
        return f"fusion, fitted on {self._judges}"

    @property
    def _judges(self) -> str:
        return counted(len(self.judge), "dev text" if self.rest is None else "held-out text")

    def _few_of_judge(self) -> TrainingSet:
        """The held-out texts, or at most 5,000 of the dev data, all of which have labels."""
        rows = np.flatnonzero(np.diff(self.judge.labels.indptr))
        if len(rows) > hold_out.MOST:
            rows = np.sort(np.random.default_rng(self.config.seed).permutation(rows)[: hold_out.MOST])
        return self.judge.subset(rows)
