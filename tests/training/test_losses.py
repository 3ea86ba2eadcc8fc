"""Losses against MONAI, PyTorch and their definitions; where references are empty; and where voxels don't count."""

from __future__ import annotations

import inspect
import math
from typing import get_args

import monai.losses
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from medseg.datasets.labels import IGNORED
from medseg.errors import ConfigError
from medseg.experiment import Loss
from medseg.training.losses import LOSSES, arguments_of, build_loss
from medseg.training.region_losses import signed_distance
from medseg.training.segmentation_loss import SegmentationLoss, one_channel_each

SPECS = [
    {"name": name, **({"activation": activation} if activation else {})}
    for name in LOSSES
    for activation in (("softmax", "sigmoid") if "activation" in arguments_of(name) else ("",))
]
EVERY = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(spec.values()))


def sample(seed: int, classes: int, size: tuple[int, ...], scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, classes, *size) and classes 0..classes (2, *size)."""
    torch.manual_seed(seed)
    return torch.randn(2, classes, *size) * scale, torch.randint(0, classes + 1, (2, *size))


def maps_of(loss: SegmentationLoss, target: torch.Tensor, foreground: int) -> torch.Tensor | None:
    maps = [loss.maps(label.numpy(), foreground) for label in target]
    return None if maps[0] is None else torch.from_numpy(np.stack(maps))


def drawn(loss: SegmentationLoss, seed: int, foreground: int, size: tuple[int, ...], ignored: float = 0.0):
    """Logits, target with a share of ignored voxels, and maps."""
    logits, _ = sample(seed, loss.channels(foreground), size)
    target = torch.randint(0, foreground + 1, (2, *size))
    target[torch.rand(target.shape) < ignored] = IGNORED
    return logits.requires_grad_(), target, maps_of(loss, target, foreground)


def test_the_config_names_every_loss():
    assert list(get_args(Loss.model_fields["name"].annotation)) == list(LOSSES)
    assert all(build.__doc__ for build in LOSSES.values())


@EVERY
@given(
    seed=st.integers(0, 1000),
    foreground=st.integers(1, 3),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    batch=st.booleans(),
    reference=st.sampled_from(["mixed", "empty", "full", "ignored"]),
    volume=st.booleans(),
    progress=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_never_negative_and_defined(spec, seed, foreground, scale, batch, reference, volume, progress):
    loss = build_loss({**spec, **({"batch": batch} if "batch" in arguments_of(spec["name"]) else {})})
    loss.progress = progress
    size = (3, 4, 5) if volume else (4, 5)
    logits, _ = sample(seed, loss.channels(foreground), size, scale)
    target = torch.randint(0, foreground + 1, (2, *size))
    if reference != "mixed":
        target = torch.full_like(target, {"empty": 0, "full": foreground, "ignored": IGNORED}[reference])
    logits.requires_grad_()
    value = loss(logits, target, maps_of(loss, target, foreground))
    value.backward()
    assert math.isfinite(value.item()) and value.item() >= -1e-6
    assert torch.isfinite(logits.grad).all()
    if reference == "ignored":
        assert value.item() == 0
        assert not logits.grad.any()


@EVERY
@given(seed=st.integers(0, 1000), foreground=st.integers(1, 3), share=st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=15, deadline=None)
def test_what_is_ignored_changes_nothing_and_has_no_gradient(spec, seed, foreground, share):
    loss = build_loss(spec)
    loss.progress = 0.5
    logits, target, maps = drawn(loss, seed, foreground, (5, 6), share)
    value = loss(logits, target, maps)
    value.backward()
    ignored = (target == IGNORED).unsqueeze(1)
    assert not torch.where(ignored, logits.grad, 0).any()
    changed = torch.where(ignored, 50 * torch.randn_like(logits), logits.detach())
    assert torch.equal(loss(changed, target, maps), value.detach())


@EVERY
@given(seed=st.integers(0, 1000), foreground=st.integers(1, 3), share=st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=15, deadline=None)
def test_to_ignore_is_to_leave_out(spec, seed, foreground, share):
    """The same voxels without the ignored ones, in a row: what is summed over a batch is the same."""
    loss = build_loss(spec)
    loss.progress = 0.5
    logits, target, maps = drawn(loss, seed, foreground, (5, 6), share)
    target[:, 0, 0] = 0  # at least a voxel counts
    kept = target != IGNORED
    rows = logits.detach().movedim(1, -1)[kept].T[None]
    seen = None if maps is None else (maps[kept][None] if maps.ndim == 3 else maps.movedim(1, -1)[kept].T[None])
    torch.testing.assert_close(
        loss(logits.detach(), target, maps), loss(rows, target[kept][None], seen), rtol=1e-4, atol=1e-5
    )


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
    torch.testing.assert_close(build_loss({"name": "bce"})(logits, target), entropy)


def three_classes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits, target = sample(seed, 3, (5, 6))
    return logits, target.clamp(max=2)


def test_dice_ce_equals_monai_without_background():
    logits, target = three_classes(2)
    oracle = monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    torch.testing.assert_close(build_loss({"name": "dice_ce"})(logits, target), oracle(logits, target[:, None]))
    torch.testing.assert_close(build_loss({"name": "ce"})(logits, target), functional.cross_entropy(logits, target))


@pytest.mark.parametrize("gamma", [0, 1, 2.5])
def test_focal_is_its_definition(gamma):
    logits, target = three_classes(3)
    p = logits.softmax(1).gather(1, target[:, None])
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    torch.testing.assert_close(build_loss({"name": "focal", "gamma": gamma})(logits, target), expected)
    oracle = monai.losses.FocalLoss(gamma=gamma)(logits, one_channel_each(target, 1, 3))
    ours = build_loss({"name": "focal", "activation": "sigmoid", "gamma": gamma})
    torch.testing.assert_close(ours(logits, target), oracle)
    both = build_loss({"name": "dice_focal", "activation": "sigmoid", "gamma": gamma})(logits, target)
    dice = monai.losses.DiceLoss(sigmoid=True, batch=True)(logits, one_channel_each(target, 1, 3))
    torch.testing.assert_close(both, oracle + dice)


def test_focal_s_alpha_is_a_list_of_weights():
    logits, target = sample(4, 1, (5, 6))
    oracle = monai.losses.FocalLoss(gamma=2, alpha=0.25)(logits, target[:, None].float())
    ours = build_loss({"name": "focal", "activation": "sigmoid", "weights": [0.75, 0.25]})
    torch.testing.assert_close(ours(logits, target), oracle)


@given(seed=st.integers(0, 100), min_kept=st.sampled_from([0.05, 0.25, 1.0]), threshold=st.sampled_from([0, 0.3, 0.9]))
def test_ohem_is_its_definition(seed, min_kept, threshold):
    """All under the threshold, and where those are too few, the hardest."""
    logits, target = three_classes(seed)
    p = np.sort(logits.double().softmax(1).gather(1, target[:, None]).numpy().ravel())
    kept = max(math.ceil(min_kept * p.size), int((p < threshold).sum()))
    ours = build_loss({"name": "ohem", "threshold": threshold, "min_kept": min_kept})(logits, target)
    assert ours.item() == pytest.approx(-np.log(p[:kept]).mean(), rel=1e-4)


@pytest.mark.parametrize("batch", [True, False])
def test_tversky_equals_monai(batch):
    logits, target = three_classes(6)
    oracle = monai.losses.TverskyLoss(
        softmax=True, to_onehot_y=True, include_background=False, alpha=0.2, beta=0.9, batch=batch
    )
    ours = build_loss({"name": "tversky", "alpha": 0.2, "beta": 0.9, "batch": batch, "smooth": 1e-5})
    torch.testing.assert_close(ours(logits, target), oracle(logits, target[:, None]), rtol=1e-4, atol=1e-5)
    same = build_loss({"name": "tversky", "alpha": 0.5, "beta": 0.5, "batch": batch})
    dice = monai.losses.DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=batch)
    torch.testing.assert_close(same(logits, target), dice(logits, target[:, None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [True, False])
def test_generalized_dice_equals_monai_and_the_paper(batch):
    logits, target = three_classes(7)
    oracle = monai.losses.GeneralizedDiceLoss(
        softmax=True, to_onehot_y=True, batch=batch, smooth_nr=1e-20, smooth_dr=1e-20
    )
    ours = build_loss({"name": "generalized_dice", "batch": batch})
    torch.testing.assert_close(ours(logits, target), oracle(logits, target[:, None]))
    logits, target = sample(7, 1, (5, 6))
    p, g = logits[:, 0].sigmoid().double().numpy(), target.numpy().astype(float)
    weights = [1 / (1 - g).sum() ** 2, 1 / g.sum() ** 2]
    overlap = weights[0] * ((1 - p) * (1 - g)).sum() + weights[1] * (p * g).sum()
    mass = weights[0] * (2 - p - g).sum() + weights[1] * (p + g).sum()
    single = build_loss({"name": "generalized_dice", "activation": "sigmoid"})(logits, target)
    assert single.item() == pytest.approx(1 - 2 * overlap / mass, abs=1e-5)


def test_false_positives_cost_where_the_reference_is_empty():
    """Also with one sigmoid channel, where no class is there to weigh."""
    for spec in SPECS:
        loss = build_loss(spec)
        target = torch.zeros(2, 6, 6, dtype=torch.int64)
        logits = torch.zeros(2, loss.channels(1), 6, 6)
        logits[:, -1, :3] = 2.0
        logits.requires_grad_()
        loss(logits, target, maps_of(loss, target, 1)).backward()
        assert (logits.grad[:, -1, :3] > 0).all(), spec


@given(seed=st.integers(0, 100), volume=st.booleans())
def test_signed_distances_equal_monai_s(seed, volume):
    mask = np.random.default_rng(seed).random((5, 6, 4) if volume else (7, 9)) < 0.6
    oracle = monai.losses.BoundaryLoss().compute_distance_map(torch.from_numpy(mask)[None, None].float())
    np.testing.assert_allclose(signed_distance(mask), oracle[0, 0].numpy(), rtol=1e-6)
    for flat in (np.zeros_like(mask), np.ones_like(mask)):
        assert not signed_distance(flat).any()


def test_the_boundary_loss_has_monai_s_gradient_and_is_nothing_for_the_reference():
    loss = build_loss({"name": "boundary", "activation": "sigmoid", "alphas": [0.0, 1.0]})
    loss.progress = 1.0
    logits, target, maps = drawn(loss, 8, 2, (8, 9))
    loss(logits, target, maps).backward()
    ours, logits.grad = logits.grad, None
    monai.losses.BoundaryLoss(sigmoid=True)(logits, one_channel_each(target, 1, 2)).backward()
    torch.testing.assert_close(ours, logits.grad)
    exact = 200 * one_channel_each(target, 1, 2) - 100
    assert loss(exact, target, maps).item() == pytest.approx(0, abs=1e-6)


def test_the_boundary_s_share_rises_with_the_training():
    values = []
    for alphas, progress in (((0.2, 0.8), 0.5), ((0.0, 0.0), 0.5), ((1.0, 1.0), 0.1)):
        loss = build_loss({"name": "boundary", "alphas": list(alphas)})
        loss.progress = progress
        logits, target, maps = drawn(loss, 9, 2, (8, 9))
        values.append(loss(logits, target, maps))
    torch.testing.assert_close(values[0], (values[1] + values[2]) / 2)
    with pytest.raises(ValueError, match="distance maps"):
        build_loss({"name": "boundary"})(logits, target)


def test_weighted_ce_is_linear_in_the_weights():
    logits, target = three_classes(3)
    loss = build_loss({"name": "weighted_ce"})
    ones = torch.ones(2, 5, 6)
    torch.testing.assert_close(loss(logits, target, ones), functional.cross_entropy(logits, target))
    torch.testing.assert_close(loss(logits, target, ones), loss(logits, target))
    torch.testing.assert_close(loss(logits, target, 3 * ones), 3 * loss(logits, target))
    single = torch.zeros(2, 5, 6)
    single[0, 1, 2] = 1
    alone = -logits[0, :, 1, 2].log_softmax(0)[target[0, 1, 2]]
    torch.testing.assert_close(loss(logits, target, single), alone / 60)


@EVERY
def test_means_do_not_depend_on_how_often_a_sample_is_there(spec):
    loss = build_loss(spec)
    logits, target, maps = drawn(loss, 4, 1, (4, 4))
    twice = None if maps is None else torch.cat([maps, maps])
    again = loss(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1), twice)
    torch.testing.assert_close(again, loss(logits, target, maps), rtol=1e-5, atol=1e-5)


@EVERY
def test_perfect_logits_cost_next_to_nothing(spec):
    loss = build_loss(spec)
    target = torch.randint(0, 3, (2, 6, 6))
    channels = loss.channels(2)
    logits = 200 * one_channel_each(target, 3 - channels, channels) - 100
    assert loss(logits, target, maps_of(loss, target, 2)).item() < 1e-5


@EVERY
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_float32_whatever_comes_in(spec, low):
    loss = build_loss(spec)
    logits, target, maps = drawn(loss, 5, 1, (8, 8))
    half = (100 * logits.detach()).to(low)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, target, maps)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    torch.testing.assert_close(value, loss(half.float(), target, maps), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "dice_bc"}, "did you mean 'dice_bce'"),
        ({}, "must be one of dice_bce, dice_ce, dice_focal, "),
        ({"name": "dice_ce", "bach": True}, "did you mean 'batch'"),
        ({"name": "weighted_ce", "batch": True}, "takes weights"),
        ({"name": "dice_ce", "batch": "yes"}, "true or false"),
        ({"name": "dice_ce", "smooth": 0}, "above 0"),
        ({"name": "focal", "gamma": 0.5}, "0, or a number of 1 or more"),
        ({"name": "focal", "activation": "relu"}, "softmax or sigmoid"),
        ({"name": "tversky", "alpha": float("nan")}, "above 0"),
        ({"name": "ohem", "threshold": 1}, "under 1"),
        ({"name": "ohem", "min_kept": 0}, "above 0 and up to 1"),
        ({"name": "boundary", "alphas": 0.5}, "two numbers"),
        ({"name": "ce", "weights": "median"}, "did you mean 'median_frequency'"),
        ({"name": "ce", "weights": [1, -1]}, "0 or more"),
        ({"name": "ce", "weights": [0, 0]}, "0 or more"),
        ({"name": "ce", "weights": 3}, "one for each class"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(spec)


def test_arguments_are_those_of_the_builders():
    for name, build in LOSSES.items():
        assert list(arguments_of(name)) == list(inspect.signature(build).parameters)
        assert type(build_loss({"name": name, **arguments_of(name)})) is type(build())


@EVERY
def test_no_step_waits_for_the_device(spec):
    """A tensor without values cannot be waited for: what would copy a number to the host fails on it."""
    loss = build_loss({**spec, **({"weights": [1, 2, 3]} if "weights" in arguments_of(spec["name"]) else {})})
    logits, target, maps = drawn(loss, 0, 2, (4, 5))
    away = loss.to("meta")
    far = logits.detach().to("meta").requires_grad_()
    away(far, target.to("meta"), None if maps is None else maps.to("meta")).backward()
    assert far.grad.shape == logits.shape
