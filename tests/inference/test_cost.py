import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from medseg import build_network
from medseg.geometry import Field
from medseg.inference.cost import HEAP_BYTES, Forward, Sample, count_forward, measure_forward
from medseg.inference.segment import prepare
from medseg.networks.network import Network

CPU = torch.device("cpu")


def network(dims=2, depth=1, width=2, **more):
    spec = {"name": "unet", "dims": dims, "depth": depth, "width": width, "in_channels": 1, "out_channels": 2}
    return prepare(build_network({**spec, **more}), CPU)


class Pointwise(Network):
    """Two 1x1 convolutions over 16 channels: what is alive can be told by hand."""

    paper = "none"

    def __init__(self):
        super().__init__(2, 16, 16)
        self.layers = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 1) for _ in range(2)))

    def forward(self, x):
        return self.layers(x)

    def trace(self, field, axis):
        return Field()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3))
def test_what_is_alive_is_what_a_hand_counts(a, b, batch):
    one = batch * 16 * a * b * 4
    # At the second convolution: its input and output, and a copy of each.
    assert count_forward(Pointwise(), (a, b), batch).bytes == 4 * one
    assert count_forward(Pointwise(), (a, b), batch).flops == 2 * (2 * 16 * 16 * a * b * batch)


@settings(max_examples=6)
@given(
    dims=st.sampled_from([2, 3]),
    core=st.integers(1, 8),
    batch=st.integers(1, 2),
    norm=st.sampled_from(["none", "batch"]),
)
def test_operations_are_those_of_a_real_pass(dims, core, batch, norm):
    net = network(dims, norm=norm)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    window = net.footprint.input_shape((core,) * dims)
    with torch.no_grad(), FlopCounterMode(display=False) as real:
        net(torch.zeros(batch, 1, *window))
    assert count_forward(net, window, batch).flops == real.get_total_flops()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@given(st.integers(1, 100), st.integers(1, 4))
def test_counts_grow_with_window_and_batch(core, batch):
    forward = Forward(network(depth=2))
    small, large = (forward.network.footprint.input_shape((n, 8)) for n in (core, core + 8))
    assert forward.count(small).bytes < forward.count(large).bytes
    assert forward.count(small, batch).flops == batch * forward.count(small).flops
    assert forward.bytes(small, batch) <= forward.bytes(large, batch)


@pytest.mark.parametrize(("dims", "n", "padding"), [(2, 1000, "valid"), (2, 800, "same"), (3, 116, "valid")])
def test_expected_bytes_hold_the_peak_and_are_at_most_twice_it(dims, n, padding):
    forward = Forward(network(dims, depth=2, width=16, padding=padding))
    small, large = (forward.network.footprint.input_shape((m,) * dims) for m in (n // 3, n - 40))
    if forward.measure(small).bytes is None:
        pytest.skip("this system does not tell a peak that begins anew")
    expected = forward.bytes(large)
    peak = measure_forward(forward.network, large).bytes
    assert peak <= expected <= 2 * peak


def test_what_was_measured_is_expected_again():
    forward = Forward(network())
    window, other = (100, 100), (200, 200)
    forward.samples[window, 1] = Sample(2.0, HEAP_BYTES + 5 * forward.count(window).bytes)
    assert forward.bytes(window) >= forward.samples[window, 1].bytes
    assert forward.bytes(other) - HEAP_BYTES >= 5 * forward.count(other).bytes
    telling = (3000, 3000)
    forward.samples[telling, 1] = Sample(30.0, int(0.7 * forward.count(telling).bytes))
    assert forward.ratio == pytest.approx(0.7)
    rates = [forward.count(*key).flops / sample.seconds for key, sample in forward.samples.items()]
    assert forward.rate == max(rates)


def test_a_sliding_window_smaller_than_the_halo_is_measured_too():
    padded = network(depth=2, width=2, padding="same")
    window = (16, 16)
    assert padded.footprint.halo[0] > window[0]
    assert Forward(padded).measure(window).seconds > 0
