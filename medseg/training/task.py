"""What one training step is, for Lightning.

Legend: N samples in a batch, C channels, K output channels, F foreground classes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW, Optimizer

from medseg.inference.decode import Decoder
from medseg.networks.network import Network
from medseg.training.budget import Budget, learning_rate
from medseg.training.losses import SegmentationLoss
from medseg.training.samples import Sample
from medseg.training.settings import TrainingSettings

LOG_EVERY = 10
"""Steps between two points of the training curves; in between nothing waits for the device."""


class SegmentationTask(LightningModule):
    """A network, its loss, and its optimiser.

    Every draw of a step (dropout) comes from the seed and the global step: Lightning's checkpoint holds no state of
    random generators, and none is needed.
    """

    def __init__(
        self, network: Network, loss: SegmentationLoss, settings: TrainingSettings, seed: int, budget: Budget
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.settings = settings
        self.seed = seed
        self.budget = budget
        self.rate = 0.0
        self.average = None if settings.ema is None else copy.deepcopy(network).requires_grad_(False)
        self.running: dict[str, float] = {}

    @property
    def answer(self) -> Network:
        """What is validated and kept: the moving average of the weights where there is one, else the weights."""
        return self.network if self.average is None else self.average

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch: image (N, C, \\*window), label and weight (N, \\*core)."""
        torch.manual_seed(draws_of(self.seed, self.global_step))
        logits = self.network(batch["image"])
        weight = batch["weight"] if batch["weight"].numel() else None
        loss: Tensor = self.loss(logits, batch["label"], weight)
        if self.global_step % LOG_EVERY == 0:
            self._run(loss.detach(), logits.detach(), batch["label"])
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate of this step."""
        keys = self.settings
        progress = self.budget.progress(self.global_step)
        self.rate = learning_rate(keys.learning_rate, self.global_step, progress, keys.warmup_steps, keys.poly_power)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate

    def move_average(self) -> None:
        """Moves the average: ``decay * average + (1 - decay) * weights``, with a shorter memory in the first steps.

        Batch norm's statistics are averages already; they are taken as they are.
        """
        if self.average is None or self.settings.ema is None:
            return
        decay = min(self.settings.ema, self.global_step / (self.global_step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
            for kept, new in zip(self.average.buffers(), self.network.buffers(), strict=True):
                kept.copy_(new)

    def configure_optimizers(self) -> Optimizer:
        """AdamW (Loshchilov & Hutter 2019); the rate is set step by step."""
        keys = self.settings
        return AdamW(self.network.parameters(), lr=keys.learning_rate, weight_decay=keys.weight_decay)

    def _run(self, loss: Tensor, logits: Tensor, label: Tensor) -> None:
        """Keeps the step's loss and foreground Dice, for the bar and the curves."""
        decoder = Decoder(self.loss.activation)
        classes = torch.stack([decoder.classes(sample) for sample in logits])
        hits = ((classes == label) & (label > 0)).sum()
        marked = (classes > 0).sum() + (label > 0).sum()
        dice = torch.where(marked > 0, 2 * hits / marked.clamp(min=1), 1.0)
        values = torch.stack([loss.float(), dice.float()]).tolist()
        self.running = {"train/loss": values[0], "train/dice": values[1]}


def draws_of(seed: int, step: int) -> int:
    """The generator's seed for one step."""
    return (seed * 1_000_003 + step * 7_919 + 1) % 2**63
