"""``medseg info`` and ``medseg infer`` on folders of DICOM files."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_files import dataset, enhanced, placed, tilted, write, write_series

from medseg import build_network
from medseg.cli.app import main
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Normalization, Preprocessing

VOLUME = np.random.default_rng(0).integers(-200, 900, (20, 18, 12)).astype(np.int16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of two classes that turns scans to RAS."""
    torch.manual_seed(0)
    spec = {"name": "unet", "dims": 3, "depth": 1, "width": 2, "norm": "batch", "in_channels": 1, "out_channels": 2}
    network = build_network(spec).eval()
    card = ModelCard(
        medseg="0",
        network=spec,
        activation="softmax",
        labels={"values": {"background": 0, "organ": 3}, "foreground": ["organ"], "instances": False},
        preprocessing=Preprocessing(normalize=Normalization(kind="zscore")),
    )
    return write_package(tmp_path_factory.mktemp("model"), network, card)


def run(capfd, *args):
    code = main([str(arg) for arg in args])
    said = capfd.readouterr()
    return code, said.out, said.err


def called(out):
    """What the files of scans are called -> the names that their masks have."""
    with (out / "case_map.csv").open(newline="") as stream:
        return {row["file"].rpartition("/")[2]: row["case"] for row in csv.DictReader(stream)}


def mask_of(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image


def test_a_folder_gets_the_mask_that_the_same_scan_as_a_nifti_gets(model, tmp_path, capfd):
    affine = tilted()
    write_series(tmp_path / "in" / "1.2.840.7", VOLUME, affine)
    write(tmp_path / "in" / "many.dcm", enhanced(VOLUME, affine))
    nib.save(nib.Nifti1Image(VOLUME, affine), tmp_path / "in" / "same.nii.gz")
    code, _, err = run(capfd, "infer", "--tile-overlap", "-m", model, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0, err
    expected, _ = mask_of(tmp_path / "out" / "same.nii.gz")
    assert set(np.unique(expected)) == {0, 3}
    names = called(tmp_path / "out")
    for name in ("1.2.840.7", "many.dcm"):
        found, image = mask_of(tmp_path / "out" / f"{names[name]}.nii.gz")
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)  # NIfTI stores float32
        np.testing.assert_array_equal(found, expected)


def test_a_part_of_a_series_may_be_chosen(model, tmp_path, capfd):
    folder = write_series(tmp_path / "s", VOLUME, tilted(), edit=lambda k, d: setattr(d, "EchoTime", str(k % 2)))
    chosen = ["--series-filter", "EchoTime=1", "--tile-overlap"]
    code, _, err = run(capfd, "infer", "-m", model, folder, "-o", tmp_path / "out", *chosen)
    assert code == 0, err
    _, image = mask_of(tmp_path / "out" / f"{called(tmp_path / 'out')['s']}.nii.gz")
    expected = tilted()
    expected[:3, 3] += expected[:3, 2]
    expected[:3, 2] *= 2
    assert image.shape == (20, 18, 6)
    np.testing.assert_allclose(image.affine, expected, atol=1e-4)


def test_series_are_listed_with_descriptions_on_a_terminal_alone(tmp_path, capfd, monkeypatch, model):
    for uid in ("1.2.1", "1.2.2"):
        about = {"SeriesInstanceUID": uid, "SeriesDescription": "PRIVATE WORDS"}
        write_series(tmp_path / "s", VOLUME, tilted(), names=[f"{uid}-{k}" for k in range(12)], **about)
    command = ["infer", "-m", model, tmp_path / "s", "-o", tmp_path / "out"]
    for args in (["info", tmp_path / "s"], command):
        code, out, err = run(capfd, *args)
        assert code == 2 and "holds 2 DICOM series" in err and "1.2.1\n" in err and "1.2.2\n" in err
        assert "PRIVATE" not in out + err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "PRIVATE WORDS" in run(capfd, "info", tmp_path / "s")[2]
    code, out, _ = run(capfd, "info", tmp_path / "s", "--series", "1.2.2", "--json")
    assert code == 0 and json.loads(out)["tilt_deg"] == pytest.approx(18, abs=1e-3)


def test_a_bad_series_among_good_ones_is_skipped_and_told(model, tmp_path, capfd):
    write_series(tmp_path / "in" / "good", VOLUME, tilted(), SeriesInstanceUID="1.2.9")
    for k, z in enumerate((0, 1, 2, 7)):
        write(tmp_path / "in" / "bad" / f"{k}.dcm", dataset(VOLUME[:, :, 0].T.copy(), **placed((0, 0, z))))
    write(tmp_path / "in" / "labels" / "seg.dcm", dataset(VOLUME[:, :, 0], sop="1.2.840.10008.5.1.4.1.1.66.4"))
    code, _, err = run(capfd, "infer", "--tile-overlap", "-m", model, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 3 and "slices are missing" in err
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["scans"]
    names = called(tmp_path / "out")
    assert {(row["status"], row["input"]) for row in rows} == {("skipped", names["bad"]), ("done", names["good"])}


def test_a_dry_run_needs_the_choice_too(model, tmp_path, capfd):
    folder = write_series(tmp_path / "s", VOLUME, tilted(), edit=lambda k, d: setattr(d, "EchoTime", str(k % 3)))
    command = ["infer", "--dry-run", "-m", model, folder, "-o", tmp_path / "out", "--series-filter", "EchoTime=2"]
    code, out, err = run(capfd, *command)
    assert code == 0 and "20 x 18 x 4 int16" in out, err
