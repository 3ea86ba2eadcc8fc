import pytest
import torch
from laws import built

from medseg import build_network
from medseg.networks.activations import DECONVOLUTION, INTERPOLATION, STAGE, UNPOOLING, decoder_activations

NETWORKS = {
    "deconvnet": ({"name": "deconvnet", "width": 2, "depth": 3, "fc_size": 3, "dropout": 0.0}, 48),
    "segnet": ({"name": "segnet", "width": 2, "depth": 3}, 40),
    "segnet_small": ({"name": "segnet_small", "width": 2, "depth": 2}, 33),
    "unet": ({"name": "unet", "width": 2, "depth": 2, "norm": "batch"}, 60),
    "fcn8s": ({"name": "fcn8s", "width": 2, "padding": "same", "fc_size": 3}, 64),
    "deeplab_v3plus": ({"name": "deeplab_v3plus", "backbone": "resnet50", "width": 4}, 64),
    "dynunet": ({"name": "dynunet", "width": 2, "depth": 3}, 32),
    "segresnet": ({"name": "segresnet", "width": 8}, 32),
    "unet in 3D": ({"name": "unet", "dims": 3, "width": 2, "depth": 1, "norm": "batch"}, 20),
}


def modules_outputs(network, x, kinds):
    """What modules of these kinds give, by hooks: another way to the same maps."""
    found = []
    hooks = [
        module.register_forward_hook(lambda m, i, out: found.append(out.clone()))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_a_window_that_is_watched_gives_the_same_logits_and_leaves_nothing_behind(name):
    spec, n = NETWORKS[name]
    network = built({"in_channels": 1, "out_channels": 2, **spec})
    x = torch.rand(1, 1, *[n] * network.dims, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
    layers, logits = decoder_activations(network, x)
    assert torch.equal(logits, expected)
    assert layers
    assert all(layer.maps.ndim == network.dims + 1 for layer in layers)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
    assert torch.overrides._get_current_function_mode() is None
    count = len(layers)
    network(x)
    assert len(layers) == count


def test_unpoolings_are_what_the_modules_give():
    network = built({"in_channels": 1, "out_channels": 2, **NETWORKS["segnet"][0]})
    x = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    layers, _ = decoder_activations(network, x)
    found = [layer.maps for layer in layers if layer.kind == UNPOOLING]
    expected = modules_outputs(network, x, torch.nn.MaxUnpool2d)
    assert len(found) == len(expected) == 3
    assert all(torch.equal(one, other[0]) for one, other in zip(found, expected, strict=True))


def test_deconvolutions_are_taken_after_norm_and_activation():
    network = built({"in_channels": 1, "out_channels": 2, **NETWORKS["deconvnet"][0]})
    x = torch.rand(1, 1, 48, 48, dtype=torch.float64)
    layers, _ = decoder_activations(network, x)
    stages = modules_outputs(network, x, torch.nn.Sequential)[-3:]
    last = [layer.maps for layer in layers if layer.kind == DECONVOLUTION][-1]
    assert torch.equal(last, stages[-1][0])
    assert (last >= 0).all()
    kinds = [layer.kind for layer in layers]
    assert kinds.count(UNPOOLING) == 3
    assert kinds.count(DECONVOLUTION) == sum(isinstance(m, torch.nn.ConvTranspose2d) for m in network.modules())
    assert STAGE not in kinds


def test_a_decoder_of_convolutions_shows_what_they_made_at_each_size():
    network = built({"in_channels": 1, "out_channels": 2, **NETWORKS["segnet_small"][0]})
    layers, _ = decoder_activations(network, torch.rand(1, 1, 33, 33, dtype=torch.float64))
    assert [(layer.kind, layer.number) for layer in layers] == [
        (INTERPOLATION, 1), (STAGE, 1), (INTERPOLATION, 2), (STAGE, 2)
    ]  # fmt: skip
    assert all(one.maps.shape[1:] == other.maps.shape[1:] for one, other in zip(layers[::2], layers[1::2], strict=True))


def test_the_representative_channel_is_the_one_of_the_largest_variance():
    network = build_network({"name": "segnet", "in_channels": 1, "out_channels": 2, "width": 2, "depth": 2}).eval()
    layers, _ = decoder_activations(network, torch.rand(1, 1, 16, 16))
    for layer in layers:
        variances = [float(channel.numpy().var()) for channel in layer.maps]
        assert variances[layer.representative] == pytest.approx(max(variances), rel=1e-5)
