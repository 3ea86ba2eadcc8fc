"""``medseg networks NAME --activations IMAGE -m MODEL``."""

import numpy as np
import pytest
import torch
from PIL import Image

from medseg import build_network
from medseg.datasets.labels import Labels
from medseg.inference.infer import Model
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Preprocessing
from medseg.tracking.activations import across, arranged, draw_activations, heat


@pytest.fixture
def image(data_set):
    return next((data_set / "images").iterdir())


def package(folder, window, **spec):
    """An untrained model."""
    network = build_network({"in_channels": 1, "out_channels": 1, **spec})
    card = ModelCard(
        medseg="0",
        network={"in_channels": 1, "out_channels": 1, **spec},
        activation="sigmoid",
        labels=Labels({"background": 0, "cell": 255}).to_dict(),
        preprocessing=Preprocessing(normalize={"kind": "range", "range": [-3, 3]}),
        window=window,
    )
    return write_package(folder, network, card)


def test_the_picture_holds_a_panel_for_image_prediction_and_each_layer(medseg, trained, image, tmp_path):
    out = tmp_path / "new" / "a.png"
    code, printed, err = medseg("networks", "unet", "--activations", image, "-m", trained, "-o", out, "--device", "cpu")
    assert code == 0, err
    assert printed.strip() == str(out)
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # A U-Net of one level: image, prediction, its deconvolution, and what convolutions make of that.
    panels = arranged([("", np.zeros((8, 8, 3), np.uint8))] * 4)
    assert pixels.shape == (panels.height, panels.width, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 16
    assert [p.name for p in out.parent.iterdir()] == ["a.png"]


def test_the_same_model_and_image_give_the_same_picture_whatever_was_drawn_before(trained, image):
    model = Model.load(trained, torch.device("cpu"))
    first, second = (np.asarray(draw_activations(model, image)) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_volume_is_drawn_by_its_middle_plane(tmp_path):
    import nibabel

    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 24, 12)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1])), tmp_path / "v.nii")
    folder = package(tmp_path / "model", [16, 16, 8], name="segnet", dims=3, width=2, depth=2)
    model = Model.load(folder, torch.device("cpu"))
    picture = draw_activations(model, tmp_path / "v.nii")
    expected = arranged([("", np.zeros((8, 8, 3), np.uint8))] * 6)
    assert picture.size == expected.size
    other = values.copy()
    other[:, :, [0, 1, 10, 11]] = 0  # beyond the window of 8 in the middle
    nibabel.save(nibabel.Nifti1Image(other, np.diag([1, 1, 4, 1])), tmp_path / "w.nii")
    assert np.array_equal(np.asarray(draw_activations(model, tmp_path / "w.nii")), np.asarray(picture))


def test_a_scan_smaller_than_the_window_is_mirrored(tmp_path):
    Image.fromarray(np.arange(90, dtype=np.uint8).reshape(9, 10)).save(tmp_path / "small.png")
    folder = package(tmp_path / "model", [32, 32], name="segnet", width=2, depth=2)
    assert draw_activations(Model.load(folder, torch.device("cpu")), tmp_path / "small.png").width > 0


def test_heat_grows_with_the_value():
    values = np.linspace(-3, 5, 64).reshape(8, 8)
    lightness = heat(values).astype(int).sum(-1).ravel()
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] > lightness[0]
    assert not np.ptp(heat(np.full((4, 4), 7.0)), axis=(0, 1)).any()


@pytest.mark.parametrize(("spacing", "axis"), [((1, 1, 4), 2), ((4, 1, 1), 0), ((1, 1, 1), 2)])
def test_a_volume_is_cut_across_its_largest_spacing(spacing, axis):
    assert across(spacing) == axis


def test_what_is_wrong_is_told_in_one_sentence(refused, medseg, trained, image, tmp_path):
    draw = ("networks", "unet", "--activations", image)
    assert "holds a unet and not a segnet" in refused("networks", "segnet", "--activations", image, "-m", trained)
    assert "needs the network's name and a model" in refused(*draw)
    assert "needs the network's name and a model" in refused("networks", "--activations", image, "-m", trained)
    assert "add --activations" in refused("networks", "unet", "-m", trained)
    assert "no PNG" in refused(*draw, "-m", trained, "-o", tmp_path / "a.jpg")
    (tmp_path / "a.png").touch()
    assert "--overwrite" in refused(*draw, "-m", trained, "-o", tmp_path / "a.png")
    assert "none.tif: no such file" in refused(
        "networks", "unet", "--activations", tmp_path / "none.tif", "-m", trained, "-o", tmp_path / "b.png"
    )
    assert medseg(*draw, "-m", trained, "-o", tmp_path / "a.png", "--overwrite")[0] == 0
    assert (tmp_path / "a.png").stat().st_size
    assert not list(tmp_path.glob(".*"))
