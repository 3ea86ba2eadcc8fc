"""Auxiliary outputs: their losses are added up as the network, or the config, says."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medseg.datasets.labels import IGNORED
from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.network import Network
from medseg.training.budget import Budget
from medseg.training.losses import build_loss
from medseg.training.settings import TrainingSettings
from medseg.training.supervision import auxiliary_weights, nearest, supervised_loss
from medseg.training.task import SegmentationTask


class Headed(Network):
    """Logits, and those of one head at half the size."""

    auxiliary_weights = (0.4,)

    def __init__(self):
        super().__init__(2, 1, 2)
        self.main, self.side = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

    def trace(self, field: Field, axis: int) -> Field:
        return field

    def forward(self, x):
        return self.main(x)

    def outputs(self, x):
        return self.main(x), self.side(functional.avg_pool2d(x, 2))


def batch(seed=0):
    torch.manual_seed(seed)
    label = torch.randint(IGNORED, 2, (2, 8, 6))
    return {"image": torch.randn(2, 1, 8, 6), "label": label, "maps": torch.empty(0)}


def task(**keys):
    torch.manual_seed(1)
    made = SegmentationTask(
        Headed(), build_loss({"name": "ce"}), TrainingSettings(ema=None, **keys), 0, Budget(10, None)
    )
    return made.train()


@pytest.mark.parametrize(("wanted", "weight"), [(None, 0.4), ([2.0], 2.0), ([0.0], 0.0)])
def test_a_step_learns_from_all_outputs(wanted, weight):
    ours, one = task(auxiliary_weights=wanted), batch()
    loss = ours.training_step(one, 0)
    main, side = ours.network.outputs(one["image"])
    small = functional.interpolate(one["label"][:, None].float(), side.shape[2:], mode="nearest-exact")[:, 0].long()
    expected = [functional.cross_entropy(o, t, ignore_index=IGNORED) for o, t in ((main, one["label"]), (side, small))]
    torch.testing.assert_close(loss, expected[0] + weight * expected[1])
    loss.backward()
    assert (ours.network.side.weight.grad is not None) == (weight > 0)


def test_what_is_ignored_is_ignored_at_every_size():
    torch.manual_seed(2)
    for name in ("dice_ce", "ohem", "generalized_dice", "tversky"):
        outputs = [torch.randn(2, 3, *size, requires_grad=True) for size in ((8, 6), (4, 3), (2, 2))]
        supervised_loss(
            build_loss({"name": name}), outputs, (0.5, 0.25), torch.full((2, 8, 6), IGNORED), None
        ).backward()
        assert all(not out.grad.any() for out in outputs)


@pytest.mark.parametrize("size", [(4, 3), (3, 5), (8, 6), (16, 12), (5, 4)])
def test_targets_are_resampled_as_pytorch_does(size):
    values = torch.randint(0, 9, (2, 3, 8, 6))
    oracle = functional.interpolate(values.double(), size, mode="nearest-exact").long()
    assert torch.equal(nearest(values, size), oracle)
    assert torch.equal(nearest(values[:, 0], size), oracle[:, 0])


def test_maps_go_with_the_target():
    """A boundary loss of an auxiliary output of the full size counts like a second main one."""
    loss = build_loss({"name": "boundary"})
    target = torch.randint(0, 2, (1, 8, 6))
    maps = torch.from_numpy(np.stack([loss.maps(target[0].numpy(), 1)]))
    logits = torch.randn(1, 2, 8, 6)
    once = supervised_loss(loss, [logits], (), target, maps)
    torch.testing.assert_close(supervised_loss(loss, [logits, logits], (0.5,), target, maps), 1.5 * once)
    assert torch.isfinite(supervised_loss(loss, [logits, torch.randn(1, 2, 4, 3)], (1.0,), target, maps))


def test_weights_must_be_as_many_as_the_outputs():
    assert auxiliary_weights(Headed(), None) == (0.4,)
    assert auxiliary_weights(Headed(), [0.0]) == ()
    with pytest.raises(ConfigError, match="1 auxiliary outputs: give one for each"):
        auxiliary_weights(Headed(), [1.0, 0.5])
    plain = Headed()
    plain.auxiliary_weights = ()
    assert auxiliary_weights(plain, None) == ()
    with pytest.raises(ConfigError, match=r"network\.auxiliary=true"):
        task_of = TrainingSettings(auxiliary_weights=[0.4])
        SegmentationTask(plain, build_loss({"name": "ce"}), task_of, 0, Budget(1, None))


def test_the_running_dice_leaves_out_what_is_ignored():
    one = batch(3)
    ours = task()
    with torch.no_grad():
        ours.network.main.weight.zero_()
        ours.network.main.bias.copy_(torch.tensor([0.0, 1.0]))  # foreground everywhere
    ours.training_step(one, 0)
    label = one["label"]
    marked, counted = (label == 1).sum(), (label != IGNORED).sum()
    assert ours.running["train/dice"] == pytest.approx((2 * marked / (marked + counted)).item())
