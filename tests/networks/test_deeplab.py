import laws
import pytest
import torch
from torch.nn import functional

from medseg import build_network
from medseg.networks.deeplab import Average

V1 = {"name": "deeplab_v1", "in_channels": 1, "out_channels": 2, "width": 2}
V2 = {"name": "deeplab_v2", "backbone": "vgg16", "in_channels": 1, "out_channels": 2, "width": 2}
ON_RESNET = {**V2, "backbone": "resnet50"}


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        ({"name": "deeplab_v1"}, 20_505_429),
        ({"name": "deeplab_v2", "backbone": "vgg16"}, 37_877_652),
        ({"name": "deeplab_v2"}, 44_048_532),
    ],
)
def test_parameters(spec, parameters):
    assert laws.counted(spec) == parameters


def test_321_becomes_41_becomes_321():
    with torch.device("meta"):
        network = build_network({"name": "deeplab_v1"})
        x = torch.empty(1, 3, 321, 321)
        assert network.backbone(x)[-1].shape == (1, 512, 41, 41)
        assert network(x).shape == (1, 21, 321, 321)


@pytest.mark.parametrize(
    ("spec", "halo", "offset"),
    [
        (V1, 224, 1),
        ({**V1, "align_corners": False}, 228, 0),
        (V2, 312, 1),
        ({**V2, "align_corners": False}, 316, 0),
    ],
)
def test_probing_finds_the_composed_footprint(spec, halo, offset):
    network = laws.built(spec)
    laws.assert_footprint(network, across=1)
    footprint = network.footprint
    assert (footprint.halo[0], footprint.step[0], footprint.offset[0]) == (halo, 8, offset)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("spec", [V1, V2])
def test_tiled_is_whole(spec, align_corners):
    laws.assert_tiled_is_whole(laws.built({**spec, "align_corners": align_corners}), (21, 10), (8, 16))


@pytest.mark.parametrize("align_corners", [True, False])
def test_windows_that_are_stretched_are_not_exact(align_corners):
    """Why the footprint asks for n ≡ 1 (mod 8) where corners are aligned, and for n ≡ 0 where they are not."""
    network = laws.passing(laws.built({**V1, "align_corners": align_corners}))
    exact = []
    for n in (480, 481, 484):
        x = laws.noise(network, (n + 8, 1))
        with torch.inference_mode():
            whole, part = network(x)[:, :, 240:248], network(x[:, :, 8:])[:, :, 232:240]
        exact.append(bool((whole - part).abs().max() < 1e-10 * whole.std()))
    assert exact == [not align_corners, align_corners, False]


def test_aspp_of_one_rate_is_large_fov_without_the_average():
    one, v1 = laws.built({**V2, "rates": [12]}), laws.built(V1)
    v1.backbone[-1] = torch.nn.Identity()
    v1.load_state_dict({key.replace("head.0.", "head."): value for key, value in one.state_dict().items()})
    x = laws.noise(one, (30, 41))
    assert torch.equal(one(x), v1(x))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scales", [[1, 0.75, 0.5], [1.0, 1.5]])
def test_the_largest_of_all_scales(scales, align_corners):
    spec = {**V2, "align_corners": align_corners}
    network, single = laws.built({**spec, "scales": scales}), laws.built(spec)
    assert network.footprint.halo > single.footprint.halo or min(scales) == 1
    assert single.footprint.exact and not network.footprint.exact
    x = laws.noise(network, (49, 33))

    def at(x, size):
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    with torch.inference_mode():
        fused, *each = network.outputs(x)
        scores = []
        for scale in scales:
            size = [int((n - 1) * scale) + 1 if align_corners else int(n * scale + 0.5) for n in (49, 33)]
            features = single.backbone(at(x, size))
            scores.append(single.head(features[-1]))
        largest = torch.stack([at(s, scores[0].shape[2:]) for s in scores]).amax(0)
        assert torch.allclose(network(x), at(largest, (49, 33)))
    assert torch.equal(fused, network(x))
    assert [e.shape for e in each] == [fused.shape] * len(scales)


def test_a_scale_sees_farther():
    with torch.device("meta"):
        network = build_network({**V2, "scales": [1, 0.5]})
    assert network.footprint.halo == (624, 624)


def test_poolings_round_as_tiling_or_caffe_needs_it():
    with torch.device("meta"):
        up, down = build_network(V1), build_network({**V1, "align_corners": False})
        x = torch.empty(1, 1, 32, 32)
        assert up.backbone(x)[-1].shape[2:] == (5, 5)
        assert down.backbone(x)[-1].shape[2:] == (4, 4)


def test_each_scale_is_trained():
    network = laws.built({**V2, "scales": [1, 0.75, 0.5]})
    assert network.auxiliary_weights == (1.0, 1.0, 1.0)
    laws.assert_trains(network, (40, 33))
    laws.assert_overfits(network, (32, 32))


def test_on_a_resnet():
    network = laws.built(ON_RESNET)
    laws.assert_sizes(network, (1, 1), (33, 47))
    laws.assert_trains(network, (40, 33))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_average_counts_zeros_around_the_window(dims, n):
    x = torch.randn(1, 2, *[n] * dims, dtype=torch.float64)
    wanted = functional.pad(x, (1, 1) * dims)
    for axis in range(2, x.ndim):
        wanted = sum(wanted.narrow(axis, i, n) for i in range(3)) / 3
    assert torch.allclose(Average(dims)(x), wanted)
