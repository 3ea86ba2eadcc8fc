import laws
import pytest
import torch
from torch import nn

from medseg.networks.hrnet import HRNetOCR, ObjectContext

SPEC = {
    "name": "hrnet_ocr",
    "in_channels": 1,
    "out_channels": 2,
    "width": 2,
    "stem": 2,
    "features": 4,
    "modules": [1, 1],
}
SHALLOW = {**SPEC, "width": 1, "modules": [1]}
WINDOW = (48, 33)


def test_parameters_at_full_width():
    """70.3 M with 19 classes in the authors' model zoo."""
    assert laws.counted({"name": "hrnet_ocr", "out_channels": 19}) == 70_372_678
    assert laws.counted({"name": "hrnet_ocr", "out_channels": 19, "width": 18}) == 12_080_818


class _Pixels(nn.Module):
    """What is left of the context when nothing looks at the window."""

    def forward(self, pixels, regions):
        return pixels


@pytest.mark.parametrize("align_corners", [False, True])
def test_probing_without_attention_finds_the_composed_footprint(align_corners):
    network = laws.built({**SPEC, "width": 1, "align_corners": align_corners})
    network.context = _Pixels()
    laws.assert_footprint(network)
    assert network.footprint.step == (16, 16)
    assert not network.footprint.exact


def test_four_branches():
    with torch.device("meta"):
        network = HRNetOCR()
        assert network.backbone(torch.empty(1, 3, 65, 33)).shape == (1, 15 * 48, 17, 9)
    assert network.footprint.step == (32, 32)
    assert network.footprint.offset == (1, 1)


def test_context_is_what_the_paper_says():
    """Voxel by voxel, with the transforms as they are."""
    torch.manual_seed(0)
    context = ObjectContext(2, 4, 2, 0.0).double().eval()
    pixels, regions = torch.randn(1, 4, 3, 5, dtype=torch.float64), torch.randn(1, 6, 3, 5, dtype=torch.float64)
    with torch.inference_mode():
        out = context(pixels, regions)
        weights = regions[0].flatten(1).exp()
        weights = weights / weights.sum(1, keepdim=True)
        objects = torch.stack([(w * pixels[0].flatten(1)).sum(1) for w in weights])  # (K, A)
        keys, values = (f(objects.T[None, :, :, None])[0, :, :, 0] for f in (context.key, context.value))
        queries = context.query(pixels)[0]
        mixed = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
        for i in range(3):
            for j in range(5):
                relation = (keys.T @ queries[:, i, j] / 2**0.5).exp()
                mixed[0, :, i, j] = values @ (relation / relation.sum())
        wanted = context.augment(torch.cat([context.up(mixed), pixels], 1))
    torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-12)


def test_one_class_and_a_batch_of_one_train():
    laws.assert_sizes(laws.built({**SPEC, "out_channels": 1}).train(), (33, 32))
