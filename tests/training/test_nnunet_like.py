"""The baseline configs: what they name can be built, and trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from medseg import Experiment, build_network, open_scan
from medseg.datasets.labels import Labels
from medseg.study import window_of
from medseg.training.augment import build_augmentation
from medseg.training.budget import Budget
from medseg.training.losses import build_loss
from medseg.training.samples import SampleGeometry, TileSamples, TrainingCase
from medseg.training.task import SegmentationTask

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("nnunet_like*.yaml"))
LABELS = Labels({"background": 0, "organ": 1, "lesion": 2})


def started(path: Path) -> tuple[SegmentationTask, TileSamples]:
    """A config's own training on random cases, its network narrow."""
    experiment = Experiment.load(path, ["network.width=2"])
    loss = build_loss(experiment.loss.model_dump())
    torch.manual_seed(0)
    spec = {**experiment.network.arguments, "in_channels": 1, "out_channels": loss.channels(LABELS.classes)}
    network = build_network(spec)
    geometry = SampleGeometry.of(network, window_of(experiment, network))
    rng = np.random.default_rng(0)
    shape = tuple(n - 3 for n in geometry.window)
    label = rng.integers(0, 3, (1, *shape)).astype(np.uint8)
    case = TrainingCase("case", open_scan(label + rng.normal(size=label.shape).astype(np.float32)), open_scan(label))
    augmentation = build_augmentation(experiment.augmentation, experiment.network.dims)
    samples = TileSamples([case], LABELS, geometry, augmentation, 0, 0.33, loss)
    settings = experiment.training
    return SegmentationTask(network, loss, settings, 0, Budget(settings.max_steps, None)), samples


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_step_moves_every_weight(path):
    task, samples = started(path)
    assert task.auxiliary_weights, "deep supervision is on"
    before = {name: p.detach().clone() for name, p in task.network.named_parameters()}
    optimizer = task.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["nesterov"]
    loss = task.training_step(default_collate([samples[0], samples[1]]), 0)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for name, p in task.network.named_parameters():
        assert torch.isfinite(p).all()
        assert not torch.equal(p, before[name]), name
