"""Overlapping regions: losses see channels of several classes, decisions are written as nnU-Net writes them."""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from medseg.datasets.declared import declared
from medseg.datasets.labels import IGNORED
from medseg.errors import ConfigError
from medseg.evaluation.metrics import Counts
from medseg.inference.decode import Decoder
from medseg.training.losses import build_loss

LABELS = declared({"background": 0, "whole": [1, 2, 3], "core": [3, 2], "enhancing": 3, "ignore": 4})
SIGMOIDS = ["bce", "dice_bce", "focal", "ohem", "dice_focal", "generalized_dice", "tversky", "boundary"]


def built(name: str):
    spec = {"name": name} if name in ("bce", "dice_bce") else {"name": name, "activation": "sigmoid"}
    loss = build_loss(spec)
    loss.learn_regions(LABELS)
    return loss


def drawn(seed: int, ignored: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(IGNORED if ignored else 0, 4, (2, 6, 7), generator=generator)
    return torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float32), target


def multi_hot(target: torch.Tensor) -> torch.Tensor:
    """By hand: whole = 1, 2, 3; core = 2, 3; enhancing = 3."""
    return torch.stack([target >= 1, target >= 2, target >= 3], 1).float()


@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy_and_dice_are_those_of_the_regions(seed: int) -> None:
    logits, target = drawn(seed)
    hot = multi_hot(target)
    bce = functional.binary_cross_entropy_with_logits(logits, hot)
    dice = monai.losses.DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, hot)
    torch.testing.assert_close(built("bce")(logits, target), bce)
    torch.testing.assert_close(built("dice_bce")(logits, target), bce + dice)
    focal = monai.losses.FocalLoss(gamma=2)(logits, hot)
    torch.testing.assert_close(built("focal")(logits, target), focal)


@pytest.mark.parametrize("name", SIGMOIDS)
def test_every_sigmoid_loss_takes_regions(name: str) -> None:
    """Perfect logits cost next to nothing, wrong ones more, and voxels to ignore have no gradient."""
    loss, (_, target) = built(name), drawn(1, ignored=True)
    assert loss.channels(len(LABELS.targets)) == 3
    maps = [loss.maps(label.numpy(), LABELS.classes) for label in target]
    given_maps = None if maps[0] is None else torch.from_numpy(np.stack(maps))
    perfect = (200 * multi_hot(target) - 100).requires_grad_()
    assert float(loss(perfect, target, given_maps).detach()) < 1e-3
    wrong = (-perfect.detach()).requires_grad_()
    cost = loss(wrong, target, given_maps)
    assert float(cost.detach()) > 0.3
    logits = drawn(2)[0].requires_grad_()
    loss(logits, target, given_maps).backward()
    assert logits.grad is not None and not logits.grad.movedim(1, -1)[target == IGNORED].any()


@pytest.mark.parametrize("spec", [{"name": "dice_ce"}, {"name": "ce"}, {"name": "focal"}])
def test_a_softmax_takes_none(spec: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"the regions whole, core, enhancing overlap.*such as dice_bce"):
        build_loss(spec).learn_regions(LABELS)


def test_labels_that_do_not_overlap_change_nothing() -> None:
    loss = build_loss({"name": "dice_ce"})
    loss.learn_regions(declared({"background": 0, "a": [1, 2]}))
    assert loss.members is None and loss.written == ()


@given(st.integers(0, 2**31))
def test_decisions_are_written_in_the_order_of_the_regions(seed: int) -> None:
    """nnU-Net's loop: each region above 0.5 is written over those before it."""
    probabilities = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(seed))
    expected = np.zeros((5, 6), np.uint8)
    for channel, value in enumerate([1, 2, 3]):
        expected[probabilities[channel].numpy() >= 0.5] = value
    decoder = Decoder("sigmoid", LABELS.written)
    found = decoder.classes_of_probabilities(probabilities).numpy()
    np.testing.assert_array_equal(LABELS.decode(found), expected)
    np.testing.assert_array_equal(decoder.classes(torch.logit(probabilities.double())).numpy(), found)


@given(st.integers(0, 2**31))
def test_scores_of_a_region_are_those_of_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, reference = rng.integers(0, 4, (2, 9, 8))
    whole = Counts.of(prediction, reference, LABELS.classes)
    for classes in LABELS.targets.values():
        alone = Counts.of(np.isin(prediction, classes) * 1, np.isin(reference, classes) * 1, 1)
        np.testing.assert_equal(tuple(whole.scores(*classes)), tuple(alone.scores(1)))
