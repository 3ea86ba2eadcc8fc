"""``medseg postprocess``, and the same steps within ``medseg infer``."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label

from medseg import Box, open_scan

CELL = 255
LABELS = {"values": {"background": 0, "cell": CELL}, "foreground": ["cell"], "instances": False}


def read(path):
    scan = open_scan(path)
    return scan.read(Box.of(scan.shape))[0]


def speckled(seed=0, shape=(40, 36)):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.02
    mask[5:20, 5:18] = mask[24:36, 8:30] = True
    mask[10:13, 9:12] = False
    return (mask * CELL).astype(np.uint8)


@pytest.fixture
def masks(tmp_path):
    """A folder as medseg infer leaves it: two masks, their probabilities, and what they mean."""
    folder = tmp_path / "masks"
    (folder / "probabilities").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(speckled(number)).save(folder / f"case{number}.png")
        tifffile.imwrite(folder / "probabilities" / f"case{number}.tif", np.zeros((4, 4), np.float32))
    (folder / "inference.json").write_text(json.dumps({"medseg": "0", "labels": LABELS}))
    return folder


def cleaned(mask, least):
    numbers = label(mask > 0)
    return np.isin(numbers, np.flatnonzero(np.bincount(numbers.ravel()) >= least)) & (mask > 0)


def test_masks_are_cleaned_on_their_own_grid_and_evaluate_knows_them(medseg, masks, tmp_path):
    out = tmp_path / "out"
    code, said, _ = medseg("postprocess", masks, "-o", out, "--remove-small", 9)
    assert code == 0
    assert said.count("remove_small: ") == 2
    assert sorted(p.name for p in out.iterdir()) == ["case0.png", "case1.png", "inference.json"]
    for number in range(2):
        wanted = cleaned(speckled(number), 9)
        np.testing.assert_array_equal(read(out / f"case{number}.png"), wanted * CELL)
    about = json.loads((out / "inference.json").read_text())
    assert about["labels"]["values"] == LABELS["values"]
    assert about["postprocessing"] == [{"name": "remove_small", "joined": False, "min_voxels": 9}]
    code, said, _ = medseg("evaluate", "--predictions", out, "--references", out, "--json")
    assert code == 0
    assert '"cell"' in said


def test_options_are_done_in_the_order_of_small_largest_holes_numbers(medseg, masks, tmp_path):
    out = tmp_path / "out"
    words = ["--instances", "--fill-holes", "--keep-largest", "--remove-small", 9, "--connectivity", 1, "--json"]
    code, said, _ = medseg("postprocess", masks / "case0.png", "-o", out, *words)
    assert code == 0
    row = json.loads(said)["masks"][0]
    assert [step["name"] for step in row["steps"]] == ["remove_small", "keep_largest", "fill_holes", "instances"]
    found = read(out / "case0.tif")
    assert found.dtype == np.uint32
    assert set(np.unique(found)) == {0, 1}
    numbers = label(speckled() > 0, connectivity=1)
    assert (found > 0).sum() >= np.bincount(numbers.ravel())[1:].max()
    about = json.loads((out / "inference.json").read_text())
    assert about["labels"]["instances"] is True


def test_steps_of_a_file_are_those_of_a_config(medseg, masks, tmp_path):
    (tmp_path / "steps.yaml").write_text("- {name: fill_holes, max_voxels: 4}\n- {name: remove_small, min_voxels: 9}\n")
    code, _, _ = medseg("postprocess", masks, "-o", tmp_path / "out", "--steps", tmp_path / "steps.yaml")
    assert code == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "case0.png") > 0, cleaned(speckled(), 9))


def test_without_names_values_are_named(medseg, refused, tmp_path):
    mask = np.kron(np.array([[1, 0, 2], [0, 0, 0], [1, 1, 2]], np.uint8), np.ones((3, 3), np.uint8))
    tifffile.imwrite(tmp_path / "a.tif", mask)
    assert medseg("postprocess", tmp_path / "a.tif", "-o", tmp_path / "out", "--keep-largest", "--labels", "1")[0] == 0
    wanted = mask.copy()
    wanted[:3, :3] = 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.tif"), wanted)
    line = refused("postprocess", tmp_path / "a.tif", "-o", tmp_path / "o", "--keep-largest", "--labels", "cell")
    assert "name a value" in line


def test_a_bad_mask_stops_no_other(medseg, masks, tmp_path):
    (masks / "broken.tif").write_bytes(b"II*\0 and nothing")
    code, _, said = medseg("postprocess", masks, "-o", tmp_path / "out", "--keep-largest")
    assert code == 3
    assert "broken.tif" in said
    assert "1 of 3 masks were skipped" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"case0.png", "case1.png", "inference.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to do"),
        (["--remove-small", "3 cm"], "--remove-small '3 cm' is no size"),
        (["--remove-small", "3.5"], "is no size"),
        (["--remove-small", "3mm2"], "does not say how large its voxels are"),
        (["--remove-small", "3mm3"], "min_mm3 is for scans of 3 axes"),
        (["--keep-largest", "--labels", "cel"], "'cel' .*did you mean 'cell'"),
        (["--keep-largest", "--connectivity", "3"], "connectivity 3 is above the 2 axes"),
        (["--keep-largest", "--steps", "a.yaml"], "leave the other steps"),
        (["--steps", "none.yaml"], "none.yaml does not exist"),
        (["--crf"], "add --images"),
        (["--keep-largest", "--images", "."], "--images is for --crf"),
        (["--keep-largest", "--format", "jpg"], "format 'jpg'"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(refused, masks, tmp_path, words, message):
    import re

    assert re.search(message, refused("postprocess", masks / "case0.png", "-o", tmp_path / "out", *words))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_outputs_that_exist_and_the_mask_itself_are_kept(refused, medseg, masks, tmp_path):
    words = ["postprocess", masks / "case0.png", "--keep-largest"]
    assert medseg(*words, "-o", tmp_path / "out")[0] == 0
    assert "exists" in refused(*words, "-o", tmp_path / "out")
    assert medseg(*words, "-o", tmp_path / "out", "--overwrite")[0] == 0
    before = (masks / "case0.png").read_bytes()
    assert "is the mask itself" in refused(*words, "-o", masks, "--overwrite")
    assert (masks / "case0.png").read_bytes() == before


def test_masks_of_different_meaning_are_refused(refused, masks, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(speckled()).save(other / "a.png")
    assert "have different labels" in refused("postprocess", masks, other, "-o", tmp_path / "out", "--keep-largest")


@pytest.fixture(scope="module")
def inferred(trained, data_set, tmp_path_factory):
    """Masks and probabilities of a trained model."""
    from medseg.cli.app import main

    out = tmp_path_factory.mktemp("inferred")
    words = ["infer", str(data_set / "images"), "-m", str(trained), "-o", str(out), "--probabilities"]
    assert main(words) == 0
    return out


def test_a_dense_crf_takes_what_infer_left(medseg, refused, inferred, data_set, tmp_path, monkeypatch):
    from medseg.postprocessing import crf

    small = crf.DenseCRF(sigma_alpha=3, sigma_gamma=1, iterations=2)
    monkeypatch.setattr(crf, "DenseCRF", lambda: small)
    words = ["postprocess", inferred, "--crf", "--images", data_set / "images"]
    assert medseg(*words, "-o", tmp_path / "crf")[0] == 0
    assert medseg(*words, "-o", tmp_path / "both", "--keep-largest")[0] == 0
    import torch

    image = torch.from_numpy(read(data_set / "images" / "case0.tif").astype(np.float32))[None]
    scan = open_scan(inferred / "probabilities" / "case0.tif")
    share = torch.from_numpy(scan.read(Box.of(scan.shape)).astype(np.float32))
    wanted = small.refine(image, torch.cat([1 - share, share]))[1] >= 0.5
    found = read(tmp_path / "crf" / "case0.tif")
    np.testing.assert_array_equal(found, wanted.numpy() * CELL)
    numbers = label(found > 0)
    largest = np.bincount(numbers.ravel())[1:].argmax() + 1
    np.testing.assert_array_equal(read(tmp_path / "both" / "case0.tif"), (numbers == largest) * CELL)
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == [
        *(f"case{n}.tif" for n in range(4)),
        "inference.json",
    ]
    (tmp_path / "empty").mkdir()
    line = refused(
        "postprocess", inferred / "case0.tif", "--crf", "--images", tmp_path / "empty", "-o", tmp_path / "no"
    )
    assert "holds no image for the mask 'case0'" in line


def test_infer_does_a_file_s_steps_and_numbers_objects(medseg, refused, trained, data_set, inferred, tmp_path):
    (tmp_path / "steps.yaml").write_text("postprocessing: [{name: remove_small, min_voxels: 4}]")
    words = ["infer", data_set / "images" / "case0.tif", "-m", trained]
    out = tmp_path / "out"
    code, said, _ = medseg(*words, "-o", out, "--postprocess", tmp_path / "steps.yaml", "--instances", "--json")
    assert code == 0
    assert [step["name"] for step in json.loads(said)["scans"][0]["postprocessing"]] == ["remove_small", "instances"]
    raw = read(inferred / "case0.tif")
    np.testing.assert_array_equal(read(out / "case0.tif"), label(cleaned(raw, 4)))
    about = json.loads((out / "inference.json").read_text())
    assert about["labels"]["instances"] is True
    assert medseg(*words, "-o", tmp_path / "none", "--postprocess", "none")[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "none" / "case0.tif"), raw)
    (tmp_path / "wrong.yaml").write_text("- {name: keep_larges}")
    line = refused(*words, "-o", tmp_path / "wrong", "--postprocess", tmp_path / "wrong.yaml")
    assert "did you mean 'keep_largest'" in line
    assert not (tmp_path / "wrong").exists()


def test_a_config_s_steps_go_into_the_package(medseg, refused, config, keys, data_set, tmp_path):
    steps = "postprocessing=[{name: remove_small, min_voxels: 5}, {name: keep_largest}]"
    assert medseg("train", config, *keys, steps, "-o", tmp_path / "run")[0] == 0
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert [step["name"] for step in card["postprocessing"]] == ["remove_small", "keep_largest"]
    assert medseg("infer", data_set / "images" / "case0.tif", "-m", tmp_path / "run", "-o", tmp_path / "out")[0] == 0
    assert label(read(tmp_path / "out" / "case0.tif")).max() <= 1
    line = refused(
        "train", config, *keys, "postprocessing=[{name: keep_largest, labels: [cel]}]", "-o", tmp_path / "no"
    )
    assert "did you mean 'cell'" in line
