"""What one training step is, for Lightning.

Legend: N samples in a batch, C channels, K output channels, F foreground classes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from medseg.datasets.labels import IGNORED
from medseg.errors import PackageError
from medseg.inference.decode import Decoder
from medseg.networks.network import Network
from medseg.training.budget import Budget
from medseg.training.finetune import freeze, frozen_parameters
from medseg.training.optimizer import FACTOR, build_optimizer, check_rate_factors
from medseg.training.precision import RightGradients
from medseg.training.samples import Sample
from medseg.training.schedule import learning_rate
from medseg.training.segmentation_loss import SegmentationLoss
from medseg.training.settings import TrainingSettings
from medseg.training.supervision import auxiliary_weights, supervised_loss

LOG_EVERY = 10
"""Steps between two points of the training curves; in between nothing waits for the device."""


class SegmentationTask(LightningModule):
    """A network, its loss, and its optimiser.

    Every draw of a step (dropout) comes from the seed and the global step: Lightning's checkpoint holds no state of
    random generators, and none is needed.

    Raises:
        ConfigError: where the auxiliary weights are not as many as the network's auxiliary outputs, or a frozen part is
            none of the network's.
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
        self.auxiliary_weights = auxiliary_weights(network, settings.auxiliary_weights)
        self.still = freeze(network, settings.freeze)
        self.rate = 0.0
        self.average = None if settings.ema is None else copy.deepcopy(network).requires_grad_(False)
        self.running: dict[str, float] = {}
        self.train()

    def train(self, mode: bool = True) -> SegmentationTask:
        """Training or evaluation mode; batch norms of frozen parts are always in the latter."""
        super().train(mode)
        for norm in self.still:
            norm.eval()
        return self

    @property
    def answer(self) -> Network:
        """What is validated and kept: the moving average of the weights where there is one, else the weights."""
        return self.network if self.average is None else self.average

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one batch: image (N, C, \\*window), label (N, \\*core), and the loss's maps of it."""
        torch.manual_seed(draws_of(self.seed, self.global_step))
        image, label = batch["image"], batch["label"]
        with RightGradients():
            outputs = self.network.outputs(image) if self.auxiliary_weights else (self.network(image),)
        maps = batch["maps"] if batch["maps"].numel() else None
        loss = supervised_loss(self.loss, outputs, self.auxiliary_weights, label, maps)
        if self.global_step % LOG_EVERY == 0:
            self._run(loss.detach(), outputs[0].detach(), label)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate of this step, and tells the loss how far the training is."""
        progress = self.budget.progress(self.global_step)
        self.loss.progress = progress
        self.rate = learning_rate(self.settings, self.global_step, progress)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate * group[FACTOR]

    def move_average(self) -> None:
        """Moves the average: ``decay * average + (1 - decay) * weights``, with a shorter memory in the first steps.

        Batch norm's statistics are averages already; they are taken as they are.
        """
        if self.average is None or self.settings.ema is None:
            return
        decay = min(self.settings.ema, self.global_step / (self.global_step + 10))
        both = zip(self.average.parameters(), self.network.parameters(), strict=True)
        averages, weights = zip(*((average, new) for average, new in both if new.requires_grad), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - decay)
            for kept, new in zip(self.average.buffers(), self.network.buffers(), strict=True):
                kept.copy_(new)

    def finite(self) -> bool:
        """Whether weights, their average and batch norm's statistics are finite numbers."""
        with torch.no_grad():
            return all(bool(x.isfinite().all()) for x in self.state_dict().values())

    def configure_optimizers(self) -> Optimizer:
        """The one that the settings name; the rate is set step by step."""
        return build_optimizer(self.network, self.settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint whose optimiser moves other parameters than this one.

        Raises:
            PackageError: where parts were frozen, or had rate factors, that are others here.
        """
        groups = checkpoint["optimizer_states"][0]["param_groups"]
        before = [len(group["params"]) for group in groups]
        here = [len(group["params"]) for group in build_optimizer(self.network, self.settings).param_groups]
        if before != here:
            raise PackageError(
                f"the run trained {sum(before)} parameters in {len(before)} groups until now, and would go on with "
                f"{sum(here)} in {len(here)}: keep its training.freeze and rate_factors, or begin a run with "
                "training.init_from"
            )

    def _run(self, loss: Tensor, logits: Tensor, label: Tensor) -> None:
        """Keeps the step's loss and the Dice of the foreground that counts, for the bar and the curves."""
        decoder = Decoder(self.loss.activation, self.loss.written)
        classes = torch.stack([decoder.classes(sample) for sample in logits])
        hits = ((classes == label) & (label > 0)).sum()
        marked = ((classes > 0) & (label != IGNORED)).sum() + (label > 0).sum()
        dice = torch.where(marked > 0, 2 * hits / marked.clamp(min=1), 1.0)
        values = torch.stack([loss.float(), dice.float()]).tolist()
        self.running = {"train/loss": values[0], "train/dice": values[1]}


def check_task(network: Network, settings: TrainingSettings) -> None:
    """Refuses settings that a network cannot be trained with, before anything is written.

    Raises:
        ConfigError: for auxiliary weights, rate factors or frozen parts that are not the network's.
    """
    frozen_parameters(network, settings.freeze)
    auxiliary_weights(network, settings.auxiliary_weights)
    check_rate_factors(network, settings.rate_factors)


def draws_of(seed: int, step: int) -> int:
    """The generator's seed for one step."""
    return (seed * 1_000_003 + step * 7_919 + 1) % 2**63
