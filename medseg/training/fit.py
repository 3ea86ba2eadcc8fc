"""The training loop: Lightning's Trainer over a :class:`SegmentationTask`, with what happens between its steps.

What is here is a function of (seed, step) alone, so a run that was killed and resumed from ``last.ckpt`` ends with the
weights of one that was not, as long as steps bound it.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from medseg.errors import TrainingError
from medseg.networks.network import Network
from medseg.training.budget import Budget
from medseg.training.checkpoint import read_checkpoint, save_checkpoint
from medseg.training.curves import Curves
from medseg.training.phases import Phases
from medseg.training.precision import precision_of
from medseg.training.progress import TrainingBar
from medseg.training.samples import ConsecutiveSamples, TileSamples
from medseg.training.segmentation_loss import SegmentationLoss
from medseg.training.settings import TrainingSettings
from medseg.training.task import LOG_EVERY, SegmentationTask
from medseg.training.validation import Validation, Validator

LOST_WORKER = "DataLoader worker"
"""What PyTorch's word of such a process begins with."""
CHECKPOINT_SECONDS = 120
"""At the most so much work is lost to a kill (and at the least what lies between two validations)."""


@dataclass(frozen=True)
class Listeners:
    """Who hears of a run's progress.

    Attributes:
        metrics: points of the curves: values by name, and the step.
        validation: each validation, its step, and whether it is the best so far.
    """

    metrics: Callable[[dict[str, float], int], None]
    validation: Callable[[Validation, int], None]
    best: Callable[[Network, int, dict[str, float]], None]


@dataclass(frozen=True)
class Fitted:
    """How a training ended.

    Attributes:
        steps: done in all.
        best: the best mean validation Dice.
        reason: why it stopped: ``steps``, ``time`` or ``no better``.
        seconds: of all starts together.
        phases: where they went, by phase (:mod:`medseg.training.phases`).
    """

    steps: int
    best: float
    reason: str
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)


def fit(
    network: Network,
    loss: SegmentationLoss,
    samples: TileSamples,
    validator: Validator,
    settings: TrainingSettings,
    folder: Path,
    listeners: Listeners,
    device: torch.device,
    resume: bool = False,
) -> Fitted:
    """Trains a network until its budget is spent; the best weights are handed to ``listeners.best``.

    Args:
        folder: takes ``last.ckpt`` and ``metrics.csv``.
        resume: go on from ``folder/last.ckpt`` where there is one.

    Raises:
        PackageError: where the checkpoint is damaged, foreign, or another network's.
        TrainingError: where the weights are no finite numbers any more, of which nothing is kept; where a process that
            reads samples was killed.
        KeyboardInterrupt: on Ctrl-C; what was checkpointed can be resumed.
    """
    checkpoint = folder / "last.ckpt"
    before = read_checkpoint(checkpoint, network) if resume and checkpoint.exists() else None
    budget = Budget(settings.max_steps, settings.max_minutes)
    task = SegmentationTask(network, loss, settings, samples.seed, budget)
    step = before["global_step"] if before else 0
    sampler = ConsecutiveSamples(settings.batch, step)
    columns = ["train/loss", "train/dice", "lr", "throughput", *metric_names(validator)]
    with TrainingBar() as bar:
        rounds = _Rounds(
            validator, settings, budget, checkpoint, listeners, Curves(folder / "metrics.csv", columns, step), bar
        )
        trainer = _trainer(settings, device, [rounds])
        _run(trainer, task, _loader(samples, sampler, settings, device), checkpoint if before else None)
    return Fitted(trainer.global_step, rounds.best, rounds.reason, budget.seconds, rounds.phases.seconds)


def metric_names(validator: Validator) -> list[str]:
    """The validation metrics' names, in the order of ``metrics.csv``."""
    dice = [f"val/dice/{label}" for label in validator.labels.targets]
    return ["val/loss", *dice, "val/dice_mean"]


class _Rounds(Callback):
    """What happens between steps: curves, validation, checkpoints, and the end."""

    def __init__(
        self,
        validator: Validator,
        settings: TrainingSettings,
        budget: Budget,
        checkpoint: Path,
        listeners: Listeners,
        curves: Curves,
        bar: TrainingBar,
    ) -> None:
        self.validator = validator
        self.settings = settings
        self.budget = budget
        self.checkpoint = checkpoint
        self.listeners = listeners
        self.curves = curves
        self.bar = bar
        self.validations = 0
        self.best = -1.0
        self.since_best = 0
        self.reason = "steps"
        self.phases = Phases()
        self._saved_at = time.monotonic()
        self._logged = (time.monotonic(), 0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "validations": self.validations,
            "best": self.best,
            "since_best": self.since_best,
            "seconds": self.budget.seconds,
            "phases": self.phases.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]
        self.best = state_dict["best"]
        self.since_best = state_dict["since_best"]
        self.budget.spent = state_dict["seconds"]
        self.phases.restore(state_dict.get("phases", {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.budget.start()
        self._logged = (time.monotonic(), trainer.global_step)
        self.phases.begin()
        if self.budget.over(trainer.global_step):
            trainer.should_stop = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.phases.to("waiting")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        pl_module.move_average()  # here, since Lightning calls a module's own hook after its callbacks'
        self.phases.to("forward_backward")
        self.phases.add_samples(batch["seconds"])
        step = trainer.global_step
        over = self.budget.over(step)
        if (step - 1) % LOG_EVERY == 0:
            self._log(pl_module, step)
        due = int(self.budget.progress(step) * self.settings.validations + 1e-9)
        if over or due > self.validations:
            self.validations = due
            self._validate(pl_module, step)
        if self._exhausted() or over:
            trainer.should_stop = True
            self.reason = self._why(step)
        self.phases.to("logging")
        if over or self._saved_at + CHECKPOINT_SECONDS < time.monotonic():
            self._check(pl_module, step)
            save_checkpoint(trainer, self.checkpoint)
            self._saved_at = time.monotonic()
            self.phases.to("checkpoints")

    def _log(self, task: SegmentationTask, step: int) -> None:
        now = time.monotonic()
        since, last = self._logged
        seconds = (now - since) / max(step - last, 1)
        self._logged = (now, step)
        values = {**task.running, "lr": task.rate, "throughput": self.settings.batch / max(seconds, 1e-9)}
        self._publish(values, step)
        left = self.budget.seconds_left(step, seconds)
        running = task.running
        if not math.isfinite(running["train/loss"]):
            self._check(task, step)
        self.bar.update(self.budget.progress(step), step, running["train/loss"], running["train/dice"], left)

    def _validate(self, task: SegmentationTask, step: int) -> None:
        self.phases.to("logging")
        self._check(task, step)
        found = self.validator(task.answer)
        self.phases.to("validation")
        metrics = found.metrics()
        better = metrics["val/dice_mean"] > self.best
        self.since_best = 0 if better else self.since_best + 1
        self._publish(metrics, step)
        self.listeners.validation(found, step)
        if better:
            self.best = metrics["val/dice_mean"]
            self.listeners.best(task.answer, step, metrics)
        self.bar.say(
            f"step {step}: validation loss {metrics['val/loss']:.4f}, Dice {metrics['val/dice_mean']:.4f}"
            + (" (best)" if better else "")
        )
        self._saved_at = float("-inf")
        self._logged = (time.monotonic(), step)

    def _publish(self, values: dict[str, float], step: int) -> None:
        self.curves.add(step, values)
        self.listeners.metrics(values, step)

    def _exhausted(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.since_best >= patience

    def _why(self, step: int) -> str:
        if self._exhausted():
            return "no better"
        limit = self.settings.max_steps
        return "steps" if limit is not None and step >= limit else "time"

    def _check(self, task: SegmentationTask, step: int) -> None:
        if task.finite():
            return
        settings = self.settings
        remedies = [f"lower training.learning_rate={settings.learning_rate:g}"]
        remedies += [] if settings.gradient_clip else ["set training.gradient_clip=1"]
        remedies += ["set training.precision=32"] if settings.precision not in ("auto", "32") else []
        kept = "the best model of the run folder is from before" if self.best >= 0 else "there is no model yet"
        raise TrainingError(
            f"after step {step} the weights are no finite numbers any more (loss {task.running['train/loss']:.4g}, "
            f"learning rate {task.rate:.4g}); {kept}: {', or '.join(remedies)}"
        )


def _trainer(settings: TrainingSettings, device: torch.device, callbacks: list[Callback]) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=precision_of(settings, device),
        max_steps=settings.max_steps or -1,
        max_epochs=-1,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _loader(
    samples: TileSamples, sampler: ConsecutiveSamples, settings: TrainingSettings, device: torch.device
) -> DataLoader[Any]:
    workers = settings.workers
    if workers:
        samples.census  # noqa: B018 - counted here, once, and not by every worker
    return DataLoader(
        samples,
        batch_size=settings.batch,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def _run(trainer: Trainer, task: SegmentationTask, loader: DataLoader[Any], checkpoint: Path | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="torch.utils.data")
        try:
            trainer.fit(task, loader, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if not str(error).startswith(LOST_WORKER):
                raise
            raise TrainingError(
                f"a process that reads samples came to an end ({' '.join(str(error).split())}): the memory may not "
                "suffice; lower training.cache_mib or training.workers, and go on with medseg train --resume"
            ) from None
        finally:
            signal.signal(signal.SIGINT, handler)
