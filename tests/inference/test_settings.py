import pytest
from pydantic import ValidationError

from medseg import build_network
from medseg.errors import ConfigError, TileError
from medseg.inference.blend import Blending
from medseg.inference.settings import InferenceSettings


def network(padding="valid", norm="batch", dims=2):
    spec = {"name": "unet", "dims": dims, "depth": 1, "width": 2, "in_channels": 1, "out_channels": 2}
    return build_network({**spec, "padding": padding, "norm": norm})


@pytest.mark.parametrize(
    ("padding", "norm", "mode"),
    [
        ("valid", "batch", "tile-overlap"),
        ("same", "batch", "sliding-window"),
        ("same", "instance", "sliding-window"),
        ("valid", "instance", "whole"),
    ],
)
def test_a_network_has_its_natural_way_through_a_scan(padding, norm, mode):
    net = network(padding, norm)
    resolved = InferenceSettings().resolved(net, [32, 24])
    assert resolved.mode == mode
    assert resolved.resolved(net, None) == resolved
    if mode == "sliding-window":
        assert resolved.blending == Blending((32, 24), 0.5, "gaussian", 0.125)


def test_what_is_wanted_is_kept():
    net = network("same", dims=3)
    wanted = InferenceSettings(mode="sliding-window", roi=[16], overlap=0.25, blend="constant", sigma_scale=0.2)
    assert wanted.resolved(net, [32, 32, 32]).blending == Blending((16, 16, 16), 0.25, "constant", 0.2)
    for mode in ("tile-overlap", "whole"):
        assert InferenceSettings(mode=mode).resolved(net, None).mode == mode


@pytest.mark.parametrize(
    ("padding", "norm", "settings", "window", "error", "message"),
    [
        ("same", "instance", {"mode": "tile-overlap"}, [32], TileError, "looks at its whole window"),
        ("valid", "instance", {"mode": "tile-overlap"}, [32], TileError, "use --sliding-window or --whole"),
        ("valid", "batch", {"mode": "sliding-window"}, [28], TileError, "its convolutions are valid"),
        ("same", "batch", {"roi": [33, 32]}, None, TileError, "tile 33 is not admissible.*try 32 or 34"),
        ("same", "batch", {"roi": [32, 32, 32]}, None, TileError, "3 axes for a network of 2"),
        ("same", "batch", {}, None, ConfigError, "give --roi N"),
    ],
)
def test_what_a_network_cannot_take_is_told(padding, norm, settings, window, error, message):
    with pytest.raises(error, match=message):
        InferenceSettings(**settings).resolved(network(padding, norm), window)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "tiles"},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"roi": [0]},
        {"blend": "linear"},
        {"sigma_scale": 0},
        {"window": 3},
    ],
)
def test_values_that_are_none_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        InferenceSettings(**wrong)


def test_windows_of_settings_that_are_not_resolved_are_a_defect():
    with pytest.raises(ValueError, match="resolve them first"):
        _ = InferenceSettings().blending
