"""One law for all: what every entry of the table of networks must hold, in 2D and 3D."""

import re

import pytest
import torch
from laws import (
    assert_blended_is_monais,
    assert_casts,
    assert_cut_is_whole,
    assert_footprint,
    assert_overfits,
    assert_round_trip,
    assert_tiled_is_whole,
    assert_trains,
    assert_trains_in_bfloat16,
    noise,
)
from narrow import NARROW, network_of, window_of

from medseg import NETWORKS, MedsegError, build_network
from medseg.networks import describe

TWO = r"\(mod (\d+)\), (\d+) or more; try (\d+) or (\d+)"
WIDEST = 24
"""The widest halo with which a 3D network is tiled along all of its axes."""
every = pytest.mark.parametrize("name", list(NETWORKS))
both = pytest.mark.parametrize("dims", [2, 3])
exact = pytest.mark.parametrize("name", [name for name in NETWORKS if NARROW[name].exact is not None])
inexact = pytest.mark.parametrize("name", [name for name in NETWORKS if NARROW[name].exact != {}])


def test_every_network_is_in_the_table():
    assert list(NARROW) == list(NETWORKS)


@every
@both
def test_it_is_built_at_full_width_without_memory(name, dims):
    described = describe({"name": name, "dims": dims})
    assert described["parameters"] > 500_000
    with torch.device("meta"):
        network = build_network({"name": name, "dims": dims})
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert network.footprint.ndim == dims


@every
@both
def test_what_is_counted_is_what_is_allocated(name, dims):
    spec = NARROW[name].spec(name, dims)
    assert describe(spec)["parameters"] == sum(p.numel() for p in build_network(spec).parameters())


@every
@both
def test_every_parameter_gets_a_gradient(name, dims):
    network = network_of(name, dims)
    assert_trains(network, window_of(name, network))


@every
@both
def test_it_overfits_one_image(name, dims):
    network = network_of(name, dims)
    assert_overfits(network, window_of(name, network))


@every
@both
def test_it_trains_in_bfloat16(name, dims):
    network = network_of(name, dims)
    assert_trains_in_bfloat16(network, window_of(name, network))


@every
@both
def test_layouts_and_precisions_give_the_same_labels(name, dims):
    network = network_of(name, dims)
    assert_casts(network, window_of(name, network))


@every
@both
def test_weights_are_written_and_read(name, dims, tmp_path):
    spec = NARROW[name].spec(name, dims)
    assert_round_trip(spec, window_of(name, network_of(name, dims)), tmp_path)


@every
@both
def test_auxiliary_heads_are_for_the_loss_alone(name, dims):
    network = network_of(name, dims)
    x = noise(network, window_of(name, network))
    with torch.inference_mode():
        logits, *auxiliary = network.outputs(x)
        assert torch.equal(logits, network(x))
    assert len(auxiliary) == len(network.auxiliary_weights)
    for other in auxiliary:
        assert other.shape[:2] == logits.shape[:2]
        assert all(logits.shape[axis] % other.shape[axis] == 0 for axis in range(2, logits.ndim))
    assert all(0 < weight <= 1 for weight in network.auxiliary_weights)


@pytest.mark.parametrize(
    ("name", "dims"), [(name, dims) for name, it in NARROW.items() if it.exact is not None for dims in it.probed]
)
def test_probing_finds_the_composed_footprint(name, dims):
    network = network_of(name, dims, exact=True)
    assert_footprint(network, axis=dims - 1, across=across(network), gain=NARROW[name].gain)


@exact
@both
def test_tiled_is_whole(name, dims):
    network = network_of(name, dims, exact=True)
    if dims == 3 and max(network.footprint.halo) > WIDEST:
        assert_cut_is_whole(network)
    else:
        step = network.footprint.step
        assert_tiled_is_whole(network, (step[0] + 3, 5, 4)[:dims], step, batch=2)


@inexact
@both
def test_what_looks_at_the_whole_window_says_so(name, dims):
    assert not network_of(name, dims).footprint.exact


@inexact
@both
def test_sliding_windows_are_monais(name, dims):
    network = network_of(name, dims)
    assert_blended_is_monais(network, window_of(name, network))


@every
@both
def test_a_window_gives_logits_of_the_size_that_the_footprint_says(name, dims):
    network = network_of(name, dims)
    window = window_of(name, network)
    windows = [window]
    if network.any_size:
        windows += [(network.least,) * dims, tuple(n + 1 for n in window)]
    for n in windows:
        with torch.inference_mode():
            out = network(noise(network, n))
        expected = n if network.any_size else [m - f.trim for m, f in zip(n, network.fields, strict=True)]
        assert out.shape == (1, network.out_channels, *expected)


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].any_size])
@both
def test_a_window_that_is_too_small_is_told_the_least(name, dims):
    network = network_of(name, dims)
    least = [network.least] * dims
    network.check_window(least)
    with pytest.raises(MedsegError, match=f"too small: {network.least} an axis are the least"):
        network.check_window([network.least - 1, *least[1:]])


@pytest.mark.parametrize("name", [name for name in NETWORKS if not NETWORKS[name].any_size and name != "unetr"])
@both
def test_a_window_that_does_not_divide_is_told_the_nearest_two(name, dims):
    network = network_of(name, dims)
    first, *others = (n + step for n, step in zip(window_of(name, network), network.footprint.step, strict=True))
    for n in (1, first - 1, first + 1):
        with pytest.raises(MedsegError) as told:
            network.check_window((n, *others))
        step, least, below, above = map(int, re.search(TWO, str(told.value)).groups())
        for size in (least, below, above):
            network.check_window((size, *others))
        assert above - below == step == network.footprint.step[0]
        assert below == least if n < least else below < n < above
        with pytest.raises(MedsegError, match="try"):
            network.check_window((least - step, *others))


@every
@both
def test_a_window_of_other_axes_is_told(name, dims):
    network = network_of(name, dims)
    with pytest.raises(MedsegError, match=r"axes|takes .* alone"):
        network(torch.zeros(1, network.in_channels, *window_of(name, network), 1))


def across(network):
    """The least window along the axes that are not probed."""
    return network.least if network.any_size else None
