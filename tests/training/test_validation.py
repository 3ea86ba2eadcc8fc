"""Validation scores what ``medseg infer`` would write, by the same way through the scan."""

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from medseg import Box, Tiling, build_network, open_scan
from medseg.datasets.labels import Labels
from medseg.inference.settings import InferenceSettings
from medseg.scans.mirror import read_mirrored
from medseg.scans.preprocessing import Preprocessing
from medseg.training.validation import ValidationCase, Validator

LABELS = Labels({"background": 0, "cell": 255}, ("cell",))


def network(**changes):
    torch.manual_seed(0)
    spec = {"name": "unet", "width": 4, "depth": 1, "norm": "batch", "in_channels": 1, "out_channels": 1}
    return build_network({**spec, **changes})


def case(seed, shape=(44, 36)):
    rng = np.random.default_rng(seed)
    label = rng.random((1, *shape)) < 0.4
    image = (label + rng.standard_normal(label.shape)).astype(np.float32)
    return ValidationCase(f"case{seed}", open_scan(image), open_scan((255 * label).astype(np.uint8)))


def seen(case):
    """(1, \\*shape): the z-scored image."""
    view = Preprocessing().view(case.image)
    return view.read(Box.of(view.shape))


def by_windows(net, image):
    with torch.inference_mode():
        return sliding_window_inference(torch.from_numpy(image)[None], (16, 20), 1, net, 0.25, mode="constant")[0]


def in_one_pass(net, image):
    tile = Tiling.whole(image.shape[1:], net.footprint)[0]
    with torch.inference_mode():
        logits = net.core(torch.from_numpy(read_mirrored(open_scan(image), tile.read))[None])[0]
    return logits[(slice(None), *tile.keep.slices)]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_what_is_ignored_is_not_scored(activation):
    """Half of the reference is ignored: the scores are those of the other half, and nothing there is NaN."""
    labels = Labels({"background": 0, "cell": 255, "void": 9}, ("cell",), ignore=("void",))
    net = network(out_channels=1 if activation == "sigmoid" else 2)
    inference = InferenceSettings().resolved(net, [28, 28])
    one = case(0)
    reference = one.label.read(Box.of(one.label.shape))
    reference[:, 20:] = 9
    all_of_it = ValidationCase("nothing", one.image, open_scan(np.full_like(reference, 9)))
    cases = [ValidationCase("half", one.image, open_scan(reference)), all_of_it]
    found = Validator(cases, labels, Preprocessing(), activation, inference, torch.device("cpu"), pictures=1)(net)
    logits = in_one_pass(net.eval(), seen(one))[:, :20]
    shares = (logits.sigmoid()[0] if activation == "sigmoid" else logits.softmax(0)[1]).double().numpy()
    truth = reference[0, :20] == 255
    mask = shares >= 0.5 if activation == "sigmoid" else shares > 0.5  # of equal channels the first one wins
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    entropy = -np.log(np.where(truth, shares, 1 - shares)).mean()
    soft = 1 - 2 * (shares * truth).sum() / (shares.sum() + truth.sum())
    half, nothing = found.scores
    assert half.dice["cell"] == pytest.approx(dice, abs=2e-3)
    assert half.loss == pytest.approx(entropy + soft, abs=1e-4)
    assert (nothing.loss, nothing.dice["cell"]) == (0.0, 1.0)
    (picture,) = found.pictures
    assert not picture.reference[20:].any() and not picture.prediction[20:].any()
    np.testing.assert_array_equal(picture.reference[:20], truth)


@pytest.mark.parametrize(
    ("changes", "settings", "mode", "by_hand"),
    [
        ({"padding": "same"}, {"roi": [16, 20], "overlap": 0.25, "blend": "constant"}, "sliding-window", by_windows),
        (
            {"padding": "same", "norm": "instance"},
            {"roi": [16, 20], "overlap": 0.25, "blend": "constant"},
            "sliding-window",
            by_windows,
        ),
        ({}, {}, "tile-overlap", in_one_pass),
        ({"padding": "same"}, {"mode": "tile-overlap"}, "tile-overlap", in_one_pass),
        ({"norm": "instance"}, {}, "whole", in_one_pass),
    ],
)
def test_scores_are_those_of_the_network_s_own_way_through_a_scan(changes, settings, mode, by_hand):
    net, cases = network(**changes), [case(0), case(1)]
    inference = InferenceSettings(**settings).resolved(net, [28, 28])
    assert inference.mode == mode
    net.train()
    validator = Validator(cases, LABELS, Preprocessing(), "sigmoid", inference, torch.device("cpu"), pictures=1)
    found = validator(net)
    assert net.training
    for score, one in zip(found.scores, cases, strict=True):
        shares = by_hand(net.eval(), seen(one)).sigmoid().numpy().astype(np.float64)
        truth = one.label.read(Box.of(one.label.shape)) > 0
        mask = shares >= 0.5
        assert 0.02 < mask.mean() < 0.98
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        entropy = -np.log(np.where(truth, shares, 1 - shares)).mean()
        soft = 1 - (2 * (shares * truth).sum() + 1e-5) / (shares.sum() + truth.sum() + 1e-5)
        assert score.dice["cell"] == pytest.approx(dice, abs=2e-3)  # a voxel within rounding of 0.5 falls either way
        assert score.loss == pytest.approx(entropy + soft, abs=1e-4)
    metrics = found.metrics()
    assert metrics["val/dice_mean"] == pytest.approx(np.mean([s.dice["cell"] for s in found.scores]))
    assert [picture.name for picture in found.pictures] == ["case0"]
    first = by_hand(net, seen(cases[0])).sigmoid().numpy()[0] >= 0.5
    assert (found.pictures[0].prediction == first).mean() > 0.998
