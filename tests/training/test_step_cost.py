import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medseg import build_network
from medseg.inference.cost import Forward
from medseg.training.step_cost import count_step, index_bytes, step_bytes


def segnet(**arguments):
    return build_network({"name": "segnet", "in_channels": 1, "out_channels": 1, "width": 4, "depth": 3, **arguments})


def test_indices_are_counted_as_pytorch_gives_them():
    """Each pooling of 2 keeps one int64 for each voxel and channel that it gives."""
    expected, n, width = 0, 32, 4
    for channels in (width, 2 * width, 4 * width):
        n //= 2
        expected += 3 * channels * n * n * 8
    assert index_bytes(segnet(), (32, 32), batch=3) == expected


def test_interpolation_keeps_no_indices():
    assert index_bytes(segnet(unpool="bilinear"), (32, 32)) == 0
    network = segnet()
    index_bytes(network, (16, 16))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_step_holds_at_least_gradients_averages_and_what_backward_needs():
    network = build_network(
        {"name": "unet", "width": 24, "depth": 2, "padding": "same", "norm": "batch", "dropout": 0.0}
    )
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    held = step_bytes(network, (128, 128), 4)
    if held is None:
        pytest.skip("this system does not tell")
    # What two convolutions, norms and activations of the first level keep for the backward pass, alone:
    kept = 4 * 24 * 128 * 128 * 4 * 4
    assert held >= 0.8 * (3 * weights + kept)
    passed = Forward(network.eval()).measure((128, 128), 4).bytes
    assert passed is not None
    assert passed < held


def test_operations_of_a_step_are_those_of_a_real_one():
    network = build_network({"name": "unet", "width": 4, "depth": 2, "padding": "same", "norm": "batch"})
    x = torch.rand(2, 1, 32, 32)
    with FlopCounterMode(display=False) as real:
        network(x).square().mean().backward()
    assert count_step(network, (32, 32), 2).flops == real.get_total_flops()


def test_what_is_counted_holds_what_backward_needs_and_half_of_it_in_half_precision():
    spec = {"name": "unet", "width": 16, "depth": 2, "padding": "same", "norm": "batch", "dropout": 0.0}
    network = build_network(spec).eval()
    whole, half = (count_step(network, (128, 128), 4, half=half).bytes for half in (False, True))
    # Of the first and the last level: two convolutions, two norms, each map kept for the backward pass.
    assert whole >= 2 * 4 * 16 * 128 * 128 * 4 * 4
    assert 0.4 * whole < half < 0.7 * whole
    assert not network.training
    larger = count_step(network, (128, 128), 8).bytes
    assert 1.7 * whole < larger < 2 * whole
