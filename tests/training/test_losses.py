"""Losses against MONAI and against their definitions, and where references are empty."""

from __future__ import annotations

import math

import monai.losses
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from medseg.errors import ConfigError
from medseg.training.losses import LOSSES, build_loss, one_channel_each


def sample(seed: int, classes: int, size: tuple[int, ...], scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, classes, *size) and classes 0..classes (2, *size)."""
    torch.manual_seed(seed)
    return torch.randn(2, classes, *size) * scale, torch.randint(0, classes + 1, (2, *size))


@pytest.mark.parametrize("name", LOSSES)
@given(
    seed=st.integers(0, 1000),
    foreground=st.integers(1, 3),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    batch=st.booleans(),
    reference=st.sampled_from(["mixed", "empty", "full"]),
    volume=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_never_negative_and_defined(name, seed, foreground, scale, batch, reference, volume):
    chosen = LOSSES[name]
    size = (3, 4, 5) if volume else (4, 5)
    logits, _ = sample(seed, chosen.channels(foreground), size, scale)
    target = torch.randint(0, foreground + 1, (2, *size))
    if reference != "mixed":
        target = torch.full_like(target, 0 if reference == "empty" else foreground)
    arguments = {} if chosen.needs_weight_map else {"batch": batch}
    logits.requires_grad_()
    loss = build_loss({"name": name, **arguments})(logits, target, torch.rand(2, *size))
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() >= 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("batch", [True, False])
def test_dice_bce_is_the_sum_of_its_means(batch):
    logits, target = sample(1, 2, (5, 6))
    reference = torch.stack([target == 1, target == 2], 1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, reference)
    p = logits.sigmoid()
    axes = (0, 2, 3) if batch else (2, 3)
    dice = 1 - (2 * (p * reference).sum(axes) + 1e-5) / ((p + reference).sum(axes) + 1e-5)
    ours = build_loss({"name": "dice_bce", "batch": batch})(logits, target)
    torch.testing.assert_close(ours, entropy + dice.mean())


def test_dice_ce_equals_monai_without_background():
    logits, target = sample(2, 3, (5, 6))
    target = target.clamp(max=2)
    oracle = monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    torch.testing.assert_close(build_loss({"name": "dice_ce"})(logits, target), oracle(logits, target[:, None]))


def test_weighted_ce_is_linear_in_the_weights():
    logits, target = sample(3, 3, (5, 6))
    target = target.clamp(max=2)
    loss = build_loss({"name": "weighted_ce"})
    ones = torch.ones(2, 5, 6)
    torch.testing.assert_close(loss(logits, target, ones), functional.cross_entropy(logits, target))
    torch.testing.assert_close(loss(logits, target, ones), loss(logits, target))
    torch.testing.assert_close(loss(logits, target, 3 * ones), 3 * loss(logits, target))
    single = torch.zeros(2, 5, 6)
    single[0, 1, 2] = 1
    alone = -logits[0, :, 1, 2].log_softmax(0)[target[0, 1, 2]]
    torch.testing.assert_close(loss(logits, target, single), alone / 60)


@pytest.mark.parametrize("name", LOSSES)
def test_means_do_not_depend_on_how_often_a_sample_is_there(name):
    logits, target = sample(4, LOSSES[name].channels(1), (4, 4))
    target = target.clamp(max=1)
    loss, weights = build_loss({"name": name}), torch.rand(2, 4, 4)
    twice = loss(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1), weights.repeat(2, 1, 1))
    torch.testing.assert_close(twice, loss(logits, target, weights), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_logits_cost_next_to_nothing(name):
    target = torch.randint(0, 3, (2, 6, 6))
    channels = LOSSES[name].channels(2)
    logits = 200 * one_channel_each(target, 3 - channels, channels) - 100
    assert build_loss({"name": name})(logits, target).item() < 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_float32_whatever_comes_in(name):
    logits, target = sample(5, LOSSES[name].channels(1), (8, 8))
    half = logits.bfloat16()
    target = target.clamp(max=1)
    loss = build_loss({"name": name})
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(half, target)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss(half.float(), target), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "dice_bc"}, "did you mean 'dice_bce'"),
        ({}, "must be one of dice_bce, dice_ce, weighted_ce"),
        ({"name": "dice_ce", "bach": True}, "did you mean 'batch'"),
        ({"name": "weighted_ce", "batch": True}, "takes no arguments"),
        ({"name": "dice_ce", "batch": "yes"}, "true or false"),
        ({"name": "dice_ce", "smooth": 0}, "above 0"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(spec)
