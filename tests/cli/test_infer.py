import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))

from dicom_files import RADIOGRAPH, dataset, write

from medseg import open_scan
from medseg.scans.header import HeaderScan


@pytest.fixture
def scans(tmp_path, data_set):
    """Scans of several formats with one name each."""
    folder = tmp_path / "scans"
    folder.mkdir()
    pixels = tifffile.imread(data_set / "images" / "case0.tif")
    tifffile.imwrite(folder / "a.tif", pixels)
    Image.fromarray(pixels).save(folder / "b.png")
    return folder


def test_masks_lie_on_the_scans_own_grids_in_the_data_set_s_values(medseg, trained, scans, tmp_path):
    out = tmp_path / "out"
    code, text, _ = medseg("infer", "--tile-overlap", "-m", trained, scans, "-o", out, "--json")
    assert code == 0
    rows = json.loads(text)["scans"]
    assert [row["output"] for row in rows] == [str(out / "a.tif"), str(out / "b.png")]
    for row in rows:
        assert {"input", "output", "tiles", "seconds", "voxels_per_second", "peak_memory_bytes"} <= set(row)
        mask = open_scan(row["output"])
        assert mask.shape == open_scan(row["input"]).shape
        assert set(np.unique(mask.read(_all(mask)))) <= {0, 255}
    assert json.loads((out / "inference.json").read_text())["labels"]["values"] == {"background": 0, "cell": 255}
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


def _all(scan):
    from medseg import Box

    return Box.of(scan.shape)


@pytest.mark.parametrize("options", [["--whole"], ["--tile", "28"], ["--tile", "36,28", "--batch", "3"]])
def test_whole_and_any_tile_give_the_same_mask(medseg, trained, scans, tmp_path, options):
    assert medseg("infer", "-m", trained / "model", scans / "a.tif", "-o", tmp_path / "one")[0] == 0
    assert medseg("infer", "-m", trained / "model", scans / "a.tif", "-o", tmp_path / "two", *options)[0] == 0
    one, two = (tifffile.imread(tmp_path / n / "a.tif") for n in ("one", "two"))
    assert (one != two).mean() < 1e-3  # a logit within rounding of the threshold may fall either way


@pytest.mark.parametrize("format", ["nii.gz", "nii", "tif", "png", "zarr"])
def test_every_format_holds_the_same_mask(medseg, trained, scans, tmp_path, format):
    assert medseg("infer", "-m", trained, scans / "a.tif", "-o", tmp_path, "--format", "tif")[0] == 0
    assert medseg("infer", "-m", trained, scans / "a.tif", "-o", tmp_path / "o", "--format", format)[0] == 0
    (path,) = (p for p in (tmp_path / "o").iterdir() if p.name.startswith("a."))
    mask = open_scan(path)
    assert (mask.read(_all(mask)).squeeze() == tifffile.imread(tmp_path / "a.tif")).all()


def test_probabilities_are_written_beside(medseg, trained, scans, tmp_path):
    words = ["infer", "-m", trained, scans, "-o", tmp_path / "o", "--probabilities"]
    assert medseg(*words, "--probability-type", "float32")[0] == 0
    for name, mask in (("a.tif", "a.tif"), ("b.tif", "b.png")):
        shares = open_scan(tmp_path / "o" / "probabilities" / name)
        values = shares.read(_all(shares))
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1
        labels = open_scan(tmp_path / "o" / mask)
        assert ((values[0] >= 0.5) == (labels.read(_all(labels))[0] == 255)).mean() > 0.999


def test_two_inputs_of_one_name_keep_their_tree(medseg, trained, scans, tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / "tree" / patient).mkdir(parents=True)
        shutil.copy(scans / "a.tif", tmp_path / "tree" / patient / "ct.tif")
    assert medseg("infer", "-m", trained, tmp_path / "tree", "-o", tmp_path / "o")[0] == 0
    written = sorted(str(p.relative_to(tmp_path / "o")) for p in (tmp_path / "o").rglob("*.tif"))
    assert written == ["p1/ct.tif", "p2/ct.tif"]


def test_killed_and_started_again_gives_the_same_bytes(medseg, trained, tmp_path):
    rng = np.random.default_rng(0)
    large = tmp_path / "large.nii.gz"
    nib.save(nib.Nifti1Image(rng.integers(0, 200, (700, 640)).astype(np.uint8), np.eye(4)), large)
    words = ["infer", "--tile-overlap", "--tile", "28", "--batch", "2", "-m", str(trained), str(large)]
    assert medseg(*words, "-o", tmp_path / "whole")[0] == 0
    torn = [sys.executable, "-m", "medseg", *words, "-o", str(tmp_path / "torn")]
    process = subprocess.Popen(torn, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "torn" / ".large.nii.gz.journal"
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 20):
        os.sched_yield()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert journal.exists(), "the kill came too late: make the scan larger"
    assert not (tmp_path / "torn" / "large.nii.gz").exists()
    code, text, err = medseg(*words[:3], "60", *words[4:], "-o", tmp_path / "torn", "--json")
    assert code == 0
    assert "going on" in err
    (row,) = json.loads(text)["scans"]
    assert row["resumed_tiles"] > 0
    assert row["window"] == [28, 28]
    assert (tmp_path / "torn" / "large.nii.gz").read_bytes() == (tmp_path / "whole" / "large.nii.gz").read_bytes()


def test_outputs_that_exist_are_kept(refused, medseg, trained, scans, tmp_path):
    assert medseg("infer", "-m", trained, scans / "a.tif", "-o", tmp_path / "o")[0] == 0
    before = (tmp_path / "o" / "a.tif").read_bytes()
    assert "--overwrite" in refused("infer", "-m", trained, scans / "a.tif", "-o", tmp_path / "o")
    assert medseg("infer", "-m", trained, scans / "a.tif", "-o", tmp_path / "o", "--overwrite")[0] == 0
    assert (tmp_path / "o" / "a.tif").read_bytes() == before


def bad(folder):
    """Inputs that are none, and what must be said of each."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.tif").write_text("no image")
    (folder / "doc.docx").write_bytes(b"PK")
    (folder / "dir").mkdir()
    good = np.zeros((40, 40), np.uint8)
    nib.save(nib.Nifti1Image(good, np.eye(4)), folder / "cut.nii")
    whole = (folder / "cut.nii").read_bytes()
    (folder / "cut.nii").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(folder / "rgb.tif", np.zeros((40, 40, 3), np.uint8), photometric="rgb")
    spoiled = np.zeros((40, 40), np.float32)
    spoiled[3, 5] = np.nan
    tifffile.imwrite(folder / "nan.tif", spoiled)
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)), folder / "three.nii.gz")
    return {
        "missing.tif": "missing.tif",
        "empty.png": "empty",
        "text.tif": "text.tif",
        "doc.docx": "doc.docx",
        "dir": "holds no scan",
        "cut.nii": "cut.nii",
        "rgb.tif": "3 channels",
        "nan.tif": "nan at",
        "three.nii.gz": "3 axes",
    }


def test_bad_inputs_are_told_and_nothing_is_written(refused, trained, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name, message in bad(folder).items():
        error = refused("infer", "-m", trained, folder / name, "-o", tmp_path / "o")
        assert message.lower() in error.lower(), error
        assert name.split(".")[0] in error
        assert not list((tmp_path / "o").glob("[!.]*")) if (tmp_path / "o").exists() else True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.tif", "-o", "OUT"], "-m"),
        (["a.tif", "-m", "MODEL"], "-o OUT"),
        (["-m", "MODEL", "-o", "OUT"], "INPUT"),
        (["a.tif", "--tile-overlap", "0.5", "-m", "MODEL", "-o", "OUT"], "--tile-overlap takes no number"),
        (["a.tif", "--tile-overlap", "572", "-m", "MODEL", "-o", "OUT"], "--tile 572"),
        (["a.tif", "--tile-overlap", "--whole", "-m", "MODEL", "-o", "OUT"], "exclude each other"),
        (["a.tif", "--tile", "27", "-m", "MODEL", "-o", "OUT"], "try 26 or 28"),
        (["a.tif", "--tile", "x", "-m", "MODEL", "-o", "OUT"], "no size"),
        (["a.tif", "--format", "jpg", "-m", "MODEL", "-o", "OUT"], "format 'jpg'"),
        (["a.tif", "--device", "gpu", "-m", "MODEL", "-o", "OUT"], "device 'gpu'"),
        (["a.tif", "--batch", "0", "-m", "MODEL", "-o", "OUT"], "batch"),
        (["a.tif", "--sliding", "-m", "MODEL", "-o", "OUT"], "--sliding"),
        (["a.tif", "-m", "SCANS", "-o", "OUT"], "no model package"),
        (["DATA", "-m", "MODEL", "-o", "OUT"], "is a data set"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(refused, trained, scans, data_set, tmp_path, words, message):
    places = {"MODEL": trained, "OUT": tmp_path / "o", "a.tif": scans / "a.tif", "SCANS": scans, "DATA": data_set}
    assert message in refused("infer", *[places.get(word, word) for word in words])
    assert not list((tmp_path / "o").glob("*")) if (tmp_path / "o").exists() else True


def test_without_a_model_the_recent_runs_are_shown(refused, trained, scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs" / "yesterday")
    assert "-m runs/yesterday" in refused("infer", scans, "-o", tmp_path / "o")


def test_a_full_disk_is_told(refused, trained, scans, tmp_path, monkeypatch):
    import errno

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "truncate", full)
    monkeypatch.setattr(os, "ftruncate", full)
    error = refused("infer", "-m", trained, scans / "a.tif", "-o", tmp_path / "o")
    assert "space" in error.lower()
    assert not (tmp_path / "o" / "a.tif").exists()


@pytest.fixture
def particular(trained, tmp_path):
    """The model, which says of its training images that they were small CTs of 1 mm."""
    package = shutil.copytree(trained / "model", tmp_path / "particular")
    card = json.loads((package / "model.json").read_text())
    one, forty = ({key: [float(n)] * 2 for key in ("least", "median", "largest")} for n in (1, 40))
    about = {"spacing_mm": one, "extent_mm": forty, "units": ["mm"], "orientations": ["RA"], "modalities": ["CT"]}
    card["fingerprint"] |= about
    (package / "model.json").write_text(json.dumps(card))
    return package


def header_remarks(rows):
    """What is told of each scan that its header alone says."""
    values = ("intensity", "contrast", "constant", "pixel_type")
    return {row["input"]: [r for r in row.get("remarks", []) if r["check"] not in values] for row in rows}


def test_a_dry_run_tells_which_scans_are_unlike_the_training_images_by_their_headers(
    medseg, particular, tmp_path, monkeypatch
):
    scans, pixels = tmp_path / "scans", np.random.default_rng(0).integers(0, 200, (40, 40)).astype(np.uint8)
    scans.mkdir()
    for name, spacing in (("alike", 1), ("coarse", 5)):
        image = nib.Nifti1Image(pixels, np.diag([spacing, spacing, 1, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, scans / f"{name}.nii.gz")
    write(scans / "xray.dcm", dataset(pixels, sop=RADIOGRAPH))
    words = ["infer", "-m", particular, scans, "-o", tmp_path / "o"]
    with monkeypatch.context() as patch:
        patch.setattr(HeaderScan, "read", None)
        code, js, _ = medseg(*words, "--dry-run", "--json")
        assert code == 0
        text = medseg(*words, "--dry-run")[1]
        strict = medseg(*words, "--dry-run", "--strict")[1]
    assert not (tmp_path / "o").exists()
    told = header_remarks(json.loads(js)["scans"])
    assert list(told.values()) == [row["remarks"] for row in json.loads(js)["scans"]]
    alike, coarse = (told[str(scans / f"{name}.nii.gz")] for name in ("alike", "coarse"))
    (xray,) = (remarks for name, remarks in told.items() if name.startswith("case-"))
    assert alike == [] and text.count("unlike the training images") == 2
    assert [remark["check"] for remark in coarse] == ["spacing", "field_of_view"]
    assert "5 mm along" in coarse[0]["what"] and coarse[0]["what"] in text
    assert "modality DX (training: CT)" in [remark["what"] for remark in xray]
    assert strict.count("skipped: it is unlike the training images") == 2 and "without --strict" in strict
    assert medseg(*words)[0] == 0
    assert header_remarks(json.loads((tmp_path / "o" / "report.json").read_text())["scans"]) == told


def test_a_strict_dry_run_is_refused_as_the_run_would_be(refused, particular, scans, tmp_path):
    card = json.loads((particular / "model.json").read_text())
    (particular / "model.json").write_text(json.dumps({**card, "fingerprint": None}))
    words = ["infer", "-m", particular, scans, "-o", tmp_path / "o", "--strict"]
    assert refused(*words, "--dry-run") == refused(*words)


def test_scores_of_training_cases_are_told_as_such(medseg, trained, data_set, tmp_path):
    assert medseg("infer", "-m", trained, data_set / "images", "-o", tmp_path / "o")[0] == 0
    line = ["evaluate", "--predictions", tmp_path / "o", "--references", data_set]
    code, out, err = medseg(*line, "-o", tmp_path / "scores", "--json")
    split = json.loads((trained / "split.json").read_text())
    assert code == 0
    assert f"3 of 4 cases were trained on by this model: {', '.join(split['train'])}" in err.splitlines()
    trained_on = {row["case"]: row["trained_on"] for row in json.loads(out)["cases"]}
    assert {case for case, was in trained_on.items() if was} == {*split["train"]}
    assert "trained on" in (tmp_path / "scores" / "report.html").read_text()
