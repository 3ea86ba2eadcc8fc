"""``medseg verify``: nothing has changed, or what has, and where files of a report are now."""

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from dicom_files import tilted, write_series
from small_packages import SPEC, write_model

from medseg.datasets.labels import Labels
from medseg.inference import infer
from medseg.inference.audit import FORMAT

ORGANS = {"network": {**SPEC, "dims": 3, "out_channels": 3}, "activation": "softmax", "window": [28] * 3}
ORGANS["labels"] = Labels({"background": 0, "liver": 1, "spleen": 2}).to_dict()


@pytest.fixture(scope="module")
def done(trained, tmp_path_factory):
    """A folder with the scans, a copy of the model, and the masks of two scans; to be copied before it is changed."""
    from medseg.cli.app import main

    root = tmp_path_factory.mktemp("done")
    (root / "scans").mkdir()
    shutil.copytree(trained / "model", root / "model")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image = nib.Nifti1Image(rng.integers(0, 200, (40, 36)).astype(np.uint8), np.diag([0.5, 0.5, 1, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, root / "scans" / f"{name}.nii.gz")
    words = ["infer", "--tile", "28", "--batch", "3", "-m", root / "model", root / "scans", "-o", root / "out"]
    assert main(list(map(str, words))) == 0
    return root


@pytest.fixture
def place(done, tmp_path):
    """A copy of it that may be changed; its report tells of this copy."""
    copy = shutil.copytree(done, tmp_path / "copy")
    report = copy / "out" / "report.json"
    report.write_text(report.read_text().replace(str(done), str(copy)))
    return copy


def edit(path, change):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.array(image.dataobj)), image.affine, image.header), path)


def flipped(mask):
    """Three voxels less, or three more."""
    mask[:3, 0] = np.where(mask[:3, 0] > 0, 0, 255)
    return mask


def test_what_has_not_changed_is_the_same_with_the_recorded_tiles(medseg, done, monkeypatch):
    monkeypatch.setattr(infer, "choose_plan", None)
    code, out, err = medseg("verify", done / "out")
    assert code == 0
    assert out.count("the same") == 2 and "2 of 2 scans are as they were" in out
    assert "-> " not in err


def test_other_ways_through_a_scan_are_gone_again(medseg, done, tmp_path):
    (tmp_path / "steps.yaml").write_text("postprocessing: [{name: remove_small, min_voxels: 5}]")
    how = ["--tta", "flips", "--probabilities", "--box", "0:30,4:36"]
    words = ["infer", *how, "--postprocess", tmp_path / "steps.yaml", "-m", done / "model", done / "scans" / "a.nii.gz"]
    assert medseg(*words, "-o", tmp_path / "out")[0] == 0
    assert medseg("verify", tmp_path / "out" / "report.json", "-o", tmp_path / "new")[0] == 0
    (made,) = (path for path in (tmp_path / "new").rglob("a_box*.nii.gz") if path.parent.name != "probabilities")
    one, two = (np.asarray(nib.load(path).dataobj) for path in (made, tmp_path / "out" / made.name))
    assert (one == two).all()


def test_a_mask_that_was_edited_is_told_by_voxels_dice_and_volume(medseg, place):
    path = place / "out" / "a.nii.gz"
    before = np.asarray(nib.load(path).dataobj)
    edit(path, flipped)
    after = np.asarray(nib.load(path).dataobj)
    code, out, _ = medseg("verify", place / "out", "--json")
    assert code == 4
    rows = {row["output"]: row for row in json.loads(out)["scans"]}
    row = rows[str(path)]
    assert not row["same"] and "not the one that was written" in row["changed"][0]
    assert row["difference"]["voxels"] == (before != after).sum() == 3
    label = row["difference"]["labels"]["cell"]
    both = ((before > 0) & (after > 0)).sum()
    assert label["dice"] == pytest.approx(2 * both / ((before > 0).sum() + (after > 0).sum()))
    assert label["before"] == pytest.approx((after > 0).sum() * 0.25)
    assert label["after"] == pytest.approx((before > 0).sum() * 0.25)
    assert label["unit"] == "mm2"
    assert rows[str(place / "out" / "b.nii.gz")]["same"]


def test_a_scan_that_was_changed_is_told(medseg, place):
    edit(place / "scans" / "b.nii.gz", lambda voxels: voxels // 2)
    code, out, _ = medseg("verify", place / "out")
    assert code == 4
    assert "b.nii.gz  the scan's voxels are others" in out and "1 of 2 scans" in out


def test_another_model_is_told(medseg, place, trained):
    card = json.loads((place / "model" / "model.json").read_text())
    card["training"]["step"] = 12345
    (place / "model" / "model.json").write_text(json.dumps(card))
    code, _, err = medseg("verify", place / "out")
    assert code == 4
    assert "the model's model.json is another" in err and "weights" not in err
    assert medseg("verify", place / "out", "-m", trained)[0] == 0


def test_scans_that_were_moved_are_named_and_found_below_root(medseg, refused, place):
    (place / "scans").rename(place / "moved")
    line = refused("verify", place / "out")
    assert "2 of the 2 scans" in line and "a.nii.gz" in line and "--root FOLDER" in line
    assert medseg("verify", place / "out", "--root", place / "moved")[0] == 0
    assert medseg("verify", place / "out", "--root", place)[0] == 2
    (place / "moved" / "a.nii.gz").unlink()
    line = refused("verify", place / "out", "--root", place / "moved")
    assert "1 of the 2 scans" in line and "a.nii.gz" in line


def test_masks_that_went_with_their_report_are_found_beside_it(medseg, place):
    (place / "out").rename(place / "kept")
    edit(place / "kept" / "a.nii.gz", flipped)
    code, out, _ = medseg("verify", place / "kept")
    assert code == 4 and "3 of 1,440 voxels differ" in out


def test_a_mask_that_is_gone_is_verified_by_its_digest(medseg, place):
    (place / "out" / "a.nii.gz").unlink()
    assert medseg("verify", place / "out")[0] == 0


def test_a_model_that_is_gone_is_told(medseg, refused, place, trained):
    shutil.rmtree(place / "model")
    line = refused("verify", place / "out")
    assert str(place / "model") in line and "-m MODEL" in line
    assert medseg("verify", place / "out", "-m", trained)[0] == 0


def test_what_is_no_report_is_refused(refused, place, tmp_path):
    assert "does not exist" in refused("verify", tmp_path / "nothing")
    assert "missing" in refused("verify", tmp_path)
    report = place / "out" / "report.json"
    content = json.loads(report.read_text())
    for changes, message in [
        ({"format": FORMAT + 1}, "install a newer medseg"),
        ({"scans": []}, "no scan that was segmented"),
        ({"starts": 3}, "starts"),
    ]:
        report.write_text(json.dumps({**content, **changes}))
        assert message in refused("verify", report)
    report.write_text(report.read_text()[:100])
    assert "not readable as JSON" in refused("verify", report)


def test_a_device_that_is_not_here_and_folders_that_are_none(refused, place):
    report = place / "out" / "report.json"
    report.write_text(report.read_text().replace('"device": "cpu"', '"device": "cuda:7"'))
    assert "--device cpu" in refused("verify", report)
    assert "no folder" in refused("verify", report, "--root", report)
    assert "not empty" in refused("verify", report, "-o", place / "out")


def test_strictness_refuses_what_is_unlike_the_training_images(medseg, refused, done, tmp_path):
    constant = nib.Nifti1Image(np.full((40, 36), 9, np.uint8), np.eye(4))
    nib.save(constant, tmp_path / "flat.nii.gz")
    line = refused("infer", "--strict", "-m", done / "model", tmp_path / "flat.nii.gz", "-o", tmp_path / "strict")
    assert "unlike the training images" in line and "every voxel is 9" in line
    assert not (tmp_path / "strict" / "flat.nii.gz").exists()
    code, _, err = medseg("infer", "-m", done / "model", tmp_path / "flat.nii.gz", "-o", tmp_path / "out")
    assert code == 0 and sum("unlike the training images" in line for line in err.splitlines()) == 1
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["scans"]
    assert "constant" in [remark["check"] for remark in row["remarks"]]


@pytest.fixture(scope="module")
def segs(tmp_path_factory):
    """A folder with a tilted series, a model, and the DICOM SEGs of its mask and of its probabilities."""
    from medseg.cli.app import main

    root = tmp_path_factory.mktemp("segs")
    voxels = np.random.default_rng(0).integers(-200, 900, (12, 10, 6)).astype(np.int16)
    write_series(root / "ct", voxels, tilted(), FrameOfReferenceUID="1.2.9")
    model = write_model(root / "model", **ORGANS)
    words = ["infer", root / "ct", "-m", model, "-o", root / "out", "--format", "dcm", "--probabilities"]
    assert main(list(map(str, words))) == 0
    return root


def test_a_seg_is_verified_by_its_voxels_and_its_place(medseg, segs):
    (row,) = json.loads((segs / "out" / "report.json").read_text())["scans"]
    assert row["output"].endswith(".dcm") and row["output_digest"] and row["probabilities_bytes"]
    assert any(count for value, count in row["label_voxels"].items() if value != "0")
    code, out, err = medseg("verify", segs / "out")
    assert code == 0, (out, err)
    assert "1 of 1 scans are as they were" in out


def test_other_probabilities_of_a_seg_are_told(medseg, segs, tmp_path):
    copy = shutil.copytree(segs, tmp_path / "copy")
    report = copy / "out" / "report.json"
    content = json.loads(report.read_text())
    content["scans"][0]["probabilities_bytes"] = "0" * 64
    report.write_text(json.dumps(content).replace(str(segs), str(copy)))
    code, out, _ = medseg("verify", copy / "out")
    assert code == 4 and "other probabilities come of it" in out and "another mask" not in out


def test_a_seg_that_was_edited_is_told_by_voxels(medseg, segs, tmp_path):
    copy = shutil.copytree(segs, tmp_path / "copy")
    report = copy / "out" / "report.json"
    report.write_text(report.read_text().replace(str(segs), str(copy)))
    (mask,) = (copy / "out").glob("*.dcm")
    seg = pydicom.dcmread(mask)
    bits = bytearray(seg.PixelData)
    gone = (bits[0] & -bits[0]).bit_length() - 1  # the first voxel of the first segment's first frame
    bits[0] &= bits[0] - 1
    assert gone >= 0
    seg.PixelData = bytes(bits)
    seg.save_as(mask)
    code, out, err = medseg("verify", copy / "out")
    assert code == 4, (out, err)
    assert "the mask that is there is not the one that was written" in out and "1 of 720 voxels differ" in out
    assert "liver: Dice" in out and " ml" in out


def test_a_series_that_was_changed_or_moved_is_told(medseg, refused, segs, tmp_path):
    copy = shutil.copytree(segs, tmp_path / "copy")
    (copy / "ct").rename(copy / "moved")
    for name in ("report.json", "case_map.csv"):
        path = copy / "out" / name
        path.write_text(path.read_text().replace(str(segs), str(copy)))
    assert "1 of the 1 scans" in refused("verify", copy / "out")
    (copy / "below").mkdir()
    (copy / "moved").rename(copy / "below" / "ct")
    assert medseg("verify", copy / "out", "--root", copy / "below")[0] == 0
    one = copy / "below" / "ct" / "0.dcm"
    changed = pydicom.dcmread(one)
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(one)
    code, out, _ = medseg("verify", copy / "out", "--root", copy / "below")
    assert code == 4 and "the scan's voxels are others" in out


@pytest.fixture(scope="module")
def together(done, tmp_path_factory):
    """A folder with three models, and a scan's mask by the first two."""
    from medseg.cli.app import main

    root = tmp_path_factory.mktemp("together")
    models = [write_model(root / name, seed) for seed, name in enumerate("abc")]
    words = ["infer", done / "scans" / "a.nii.gz", "-m", models[0], "-m", models[1], "-o", root / "out"]
    assert main(list(map(str, [*words, "--tile", "28"]))) == 0
    return root


def test_an_ensemble_is_verified_with_all_its_models(medseg, refused, together):
    report = json.loads((together / "out" / "report.json").read_text())
    (start,) = report["starts"].values()
    assert [Path(model["path"]).name for model in start["models"]] == ["a", "b"]
    code, out, err = medseg("verify", together / "out")
    assert code == 0 and "the model" not in err, (out, err)
    a, b, c = ("-m", together / "a"), ("-m", together / "b"), ("-m", together / "c")
    assert medseg("verify", together / "out", *a, *b)[0] == 0
    code, out, err = medseg("verify", together / "out", *a, *c)
    assert code == 4 and "the model's weights are others" in out and "another mask comes of it" in out
    assert "1 models are given and 2 were used" in refused("verify", together / "out", *a)


def test_of_an_ensemble_the_model_that_is_gone_is_named(medseg, refused, together, tmp_path):
    copy = shutil.copytree(together, tmp_path / "copy")
    report = copy / "out" / "report.json"
    report.write_text(report.read_text().replace(str(together), str(copy)))
    (copy / "b").rename(copy / "elsewhere")
    line = refused("verify", copy / "out")
    assert f"{copy / 'b'} is gone" in line and "-m MODEL" in line
    assert medseg("verify", copy / "out", "-m", copy / "a", "-m", copy / "elsewhere")[0] == 0
