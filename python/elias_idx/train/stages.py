"""The epochs of a stage: steps, checkpoints, dev metrics, logs, and the choice of the epoch that is kept."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from elias_idx.model import Model
from elias_idx.train import distributed
from elias_idx.train.batch import derived_seed
from elias_idx.train.checkpoint import Position, Progress, RunState
from elias_idx.train.epoch import Trainee, train_steps
from elias_idx.train.export import export_index
from elias_idx.train.logs import TrainingLog
from elias_idx.train.optimizer import Optimizers
from elias_idx.train.run_folder import RunFolder
from elias_idx.train.selection import Selection

# Between checkpoints of a run that has no interval of its own: what an interruption costs at most, beside an epoch.
CHECKPOINT_SECONDS = 60.0


@dataclass
class Written:
    """The newest checkpoint of a run that goes on in this process.

    Attributes:
        at: when it was written, or the run started, by `time.monotonic`.
        named: the positions of it and of the best epoch then.
    """

    at: float = field(default_factory=time.monotonic)
    named: set[Position] = field(default_factory=set)


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    Attributes:
        progress: which epoch of which stage it was, its mean training loss and its metrics on dev data.
        num_epochs: how many epochs the stage has.
        best_epoch: the stage's best epoch until now, from 1 on: the one that is kept if the stage ends here.
        ends_stage: whether this was the stage's last epoch.
        model: gives the model as it is now; its arrays are valid only during the callback.
    """

    progress: Progress
    num_epochs: int
    best_epoch: int
    ends_stage: bool
    model: Callable[[], Model]


@dataclass(frozen=True)
class Stages:
    """Runs the stages' epochs.

    Attributes:
        trainee: what is trained.
        label_names: of the L labels.
        run: the run's folder.
        selection: which epoch of a stage is kept.
        log: what TensorBoard shows.
        on_epoch: called after every epoch.
        written: the newest checkpoint.
    """

    trainee: Trainee
    label_names: Sequence[str]
    run: RunFolder
    selection: Selection
    log: TrainingLog
    on_epoch: Callable[[EpochResult], None] | None
    written: Written = field(default_factory=Written)

    def finish(self, state: RunState) -> RunState:
        """Runs what is left of a stage's epochs; then the trainee is that of the best one."""
        config, stage = self.trainee.config, state.position.stage
        optimizers = self.trainee.optimizers(
            self._num_epochs(stage), config.stage2_learning_rate_factor if stage == 2 else 1.0
        )
        if state.position != Position(stage):
            self.written.named = {state.position, self._best(state)}
            self.run.checkpoints.load_optimizers(state.position, optimizers)
            if not state.position.steps_done:
                self._report(state)
        while not self._is_over(state):
            state = self._finish_epoch(state, optimizers)
        if state.stage_epochs and (best := self._best(state)) != state.position:
            self.run.checkpoints.restore(best, self.trainee)
        return state

    def step_number(self, state: RunState) -> int:
        """Steps before the state, as if no stage had ended early."""
        position = state.position
        epochs = position.epochs_done + sum(map(self._num_epochs, range(position.stage)))
        return epochs * self.trainee.steps_per_epoch + position.steps_done

    def _finish_epoch(self, state: RunState, optimizers: Optimizers) -> RunState:
        self.trainee.average.hide(self.trainee.averaged_parameters())
        state = self._finish_steps(state, optimizers)
        if self._is_averaged(state.position.stage, state.position.epochs_done + 1):
            self.trainee.average.add(self.trainee.averaged_parameters())
        state = state.after_epoch(distributed.from_first(lambda: self.selection.evaluate(self.current_model)))
        distributed.from_first(lambda: self._after_epoch(state, optimizers))
        self.log.epoch(self.step_number(state) - 1, state.epochs[-1].metrics)
        self._report(state)
        return state

    def _finish_steps(self, state: RunState, optimizers: Optimizers) -> RunState:
        config, stage, epoch = self.trainee.config, state.position.stage, state.position.epochs_done
        num_steps = self.trainee.steps_per_epoch
        if not state.position.steps_done:
            self.trainee.network.adjacency.refresh_best_cluster()
        seed = derived_seed(config.seed, stage, epoch)
        losses = train_steps(self.trainee, optimizers, seed, state.position.steps_done)
        title = f"stage {stage}, epoch {epoch + 1} of {self._last_epoch(stage)}"
        first, shown = state.position.steps_done, None if distributed.is_first() else True
        with tqdm(total=num_steps, initial=first, desc=title, unit="step", disable=shown) as bar:
            for loss in losses:
                self.log.step(self.step_number(state), loss, self.trainee.network.label_classifiers.learning_rate)
                state = state.after_step(loss)
                done = state.position.steps_done
                if config.checkpoint_steps and done % config.checkpoint_steps == 0 and done < num_steps:
                    distributed.from_first(functools.partial(self._write_checkpoint, state, optimizers))
                bar.set_postfix(loss=f"{state.loss_sum / done:.3f}", refresh=False)
                bar.update()
        return state

    def _after_epoch(self, state: RunState, optimizers: Optimizers) -> None:
        """Writes a checkpoint if it is time; else only what the stage's end needs: the weights of a best epoch.

        Without dev data the last epoch is the best one, so that a stage needs none.
        """
        is_time = time.monotonic() - self.written.at >= CHECKPOINT_SECONDS
        if self.trainee.config.checkpoint_steps or is_time:
            self._write_checkpoint(state, optimizers)
        elif self.selection.dev is not None and self._best(state) == state.position:
            self.run.checkpoints.write_weights(state.position, self.written.named, self.trainee)

    def _write_checkpoint(self, state: RunState, optimizers: Optimizers) -> None:
        best = self._best(state)
        self.run.checkpoints.write(state, best, self.trainee, optimizers)
        self.written.at, self.written.named = time.monotonic(), {state.position, best}

    def _is_averaged(self, stage: int, epoch: int) -> bool:
        """Whether the weights at the end of a stage's epoch, from 1 on, count in the average."""
        return stage == 2 and epoch > self._num_epochs(stage) - self.trainee.config.averaged_epochs

    def _num_epochs(self, stage: int) -> int:
        config = self.trainee.config
        return (config.recluster_epochs, config.stage1_epochs, config.stage2_epochs)[stage]

    def _is_over(self, state: RunState) -> bool:
        return self.selection.ends_stage(state.stage_epochs, self._last_epoch(state.position.stage))

    def _last_epoch(self, stage: int) -> int:
        return self.selection.last_epochs.get(stage, self._num_epochs(stage))

    def _best(self, state: RunState) -> Position:
        """Where the stage's best epoch until now ended; where the state is, if no epoch is finished."""
        if not state.stage_epochs:
            return state.position
        return Position(state.position.stage, self.selection.best(state.stage_epochs).epochs_done)

    def _report(self, state: RunState) -> None:
        if self.on_epoch is not None and distributed.is_first():
            num_epochs = self._last_epoch(state.position.stage)
            best, is_over = self._best(state).epochs_done, self._is_over(state)
            self.on_epoch(EpochResult(state.epochs[-1], num_epochs, best, is_over, self.current_model))

    def current_model(self) -> Model:
        """The model as it is now; it shares the encoder's memory, and its index is mapped from the run's folder."""
        trainee, config = self.trainee, self.trainee.config
        path = self.run.path / "index"
        index = export_index(trainee.network, self.label_names, config.beam_size, config.shortlist_size, path)
        label_counts = trainee.labels.indices.bincount(minlength=len(self.label_names)).cpu().numpy()
        return Model(
            trainee.encoder.finished(), index, label_counts, trainee.num_texts, self.run.description,
            initial_clusters=trainee.network.adjacency.initial_cluster.cpu().numpy(),
        )  # fmt: skip
