"""Class weights against counts by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from medseg.datasets.labels import IGNORED, Labels
from medseg.errors import ConfigError
from medseg.scans.scan import open_scan
from medseg.training.census import CaseCensus, counts_of
from medseg.training.class_weights import fit_class_weights, inverse_frequency, median_frequency
from medseg.training.losses import LOSSES, arguments_of, build_loss

LABELS = Labels({"background": 0, "liver": 7, "vessel": 3, "ignore": 255})
MAPS = [np.array([[0, 0, 7, 7], [0, 0, 7, 255]]), np.array([[0, 0, 3], [0, 0, 255]])]
"""Background 4 of 7 and 4 of 5, liver 3 of 7, vessel 1 of 5."""


def census():
    scans = [open_scan(label.astype(np.uint8)[None]) for label in MAPS]
    return [CaseCensus.of(scan, LABELS) for scan in scans]


def test_by_hand():
    counts = counts_of(census())
    np.testing.assert_array_equal(counts, [[4, 3, 0], [4, 0, 1]])
    # shares of the cases that have the class: 8/12, 3/7, 1/5, whose median is 3/7
    np.testing.assert_allclose(median_frequency(counts), [3 / 7 / (8 / 12), 1, 3 / 7 * 5])
    np.testing.assert_allclose(inverse_frequency(counts), [12 / 3 / 8, 12 / 3 / 3, 12 / 3 / 1])


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=4))
def test_weights_are_positive_and_finite_whatever_is_missing(rows):
    counts = np.array(rows)
    for rule in (median_frequency, inverse_frequency):
        weights = rule(counts)
        assert np.isfinite(weights).all() and (weights > 0).all()
    total = counts.sum(0)
    if total.sum():
        assert (inverse_frequency(counts) * total).sum() == pytest.approx(total.sum())


@pytest.mark.parametrize("name", [name for name in LOSSES if "weights" in arguments_of(name)])
def test_weights_act_on_every_loss_that_takes_them(name):
    """Ones change nothing, and the loss is linear in the weights; softmax and sigmoid."""
    for activation in ("softmax", "sigmoid") if "activation" in arguments_of(name) else (None,):
        spec = {"name": name, **({"activation": activation} if activation else {})}
        torch.manual_seed(0)
        values = []
        for weights in (None, [1, 1, 1], [2, 0, 0.5], [3, 1, 1.5]):
            loss = build_loss({**spec, "weights": weights})
            fit_class_weights(loss, 3, lambda: pytest.fail("nothing is to be counted"))
            torch.manual_seed(1)
            logits, target = torch.randn(2, loss.channels(2), 4, 5), torch.randint(IGNORED, 3, (2, 4, 5))
            values.append(loss(logits, target))
        plain, ones, some, more = values
        torch.testing.assert_close(plain, ones)
        # what region losses add doesn't know the weights, so differences are compared
        torch.testing.assert_close(more - some, ones - _rest(spec, logits, target))


def _rest(spec, logits, target):
    return build_loss({**spec, "weights": [0, 0, 1e-30]})(logits, target)


def test_counted_weights_equal_torch_s():
    torch.manual_seed(2)
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    loss = build_loss({"name": "ce", "weights": "median_frequency"})
    with pytest.raises(RuntimeError, match="not been fitted"):
        loss(logits, target)
    fit_class_weights(loss, 3, lambda: counts_of(census()))
    weight = torch.tensor([3 / 7 / (8 / 12), 1, 3 / 7 * 5])
    expected = functional.cross_entropy(logits, target, weight, reduction="sum") / target.numel()
    torch.testing.assert_close(loss(logits, target), expected)
    assert not loss.state_dict(), "weights are counted again by a run that goes on"


def test_a_list_of_another_length_is_refused():
    loss = build_loss({"name": "dice_ce", "weights": [1, 2]})
    with pytest.raises(ConfigError, match="there are 3 classes"):
        fit_class_weights(loss, 3, lambda: None)
