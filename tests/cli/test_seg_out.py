"""``medseg infer --format dcm`` and ``medseg evaluate`` of what it writes, from the command line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))

from dicom_files import tilted, write_series

from medseg import build_network, open_scan
from medseg.datasets.check import open_label
from medseg.datasets.declared import declared
from medseg.evaluation.opened import table_of
from medseg.geometry import Box
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Normalization, Preprocessing
from medseg.scans.segments import SegmentLook

VOLUME = np.random.default_rng(0).integers(-200, 900, (20, 18, 10)).astype(np.int16)
ORGANS = {"background": 0, "liver": 5, "spleen": 7}
NESTED = {"background": 0, "left": [1, 3], "right": [2, 3]}


def package(folder, labels, activation, **preprocessing):
    """A model of random weights, whose classes are told by chance."""
    torch.manual_seed(0)
    found = declared(labels)
    channels = len(found.targets) + (activation == "softmax")
    spec = {"name": "unet", "dims": 3, "depth": 1, "width": 2, "in_channels": 1, "out_channels": channels}
    network = build_network({**spec, "norm": "batch"}).eval()
    *_, last = (p for name, p in network.named_parameters() if name.endswith("bias"))
    with torch.no_grad():  # every class is the likeliest somewhere in noise
        logits = network.core(torch.randn(1, 1, *network.footprint.input_shape((16,) * 3)))[0]
        last -= logits.flatten(1).median(1).values
    card = ModelCard(
        medseg="0",
        network={**spec, "norm": "batch"},
        activation=activation,
        labels=found.to_dict(),
        segments={"liver": SegmentLook(code="SCT 10200004 Liver")},
        preprocessing=Preprocessing(normalize=Normalization(kind="zscore"), **preprocessing),
    )
    return write_package(folder, network, card)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    elements = {"PatientName": "Doe^Jane", "PatientID": "P1", "FrameOfReferenceUID": "1.2.9"}
    return write_series(tmp_path_factory.mktemp("series") / "ct", VOLUME, tilted(), **elements)


def whole(scan):
    return scan.read(Box.of(scan.shape))[0]


def the_mask(folder, suffix):
    (path,) = folder.glob(f"case-*{suffix}")
    return path


def test_the_seg_holds_the_labels_that_nifti_does_and_scores_against_it(series, tmp_path, medseg):
    model = package(tmp_path / "model", ORGANS, "softmax", orientation="RAS", spacing_mm=(1.5, 1.5, 3.0))
    for form, folder in (("nii.gz", "nii"), ("dcm", "seg"), ("dcm", "again")):
        code, _, err = medseg("infer", series, "-m", model, "-o", tmp_path / folder, "--format", form)
        assert code == 0, err
    seg, nifti = the_mask(tmp_path / "seg", ".dcm"), the_mask(tmp_path / "nii", ".nii.gz")
    expected = whole(open_scan(nifti))
    assert len(np.unique(expected)) > 1
    read = whole(open_label(seg, open_scan(series), table_of(declared(ORGANS))))
    np.testing.assert_array_equal(read, expected)
    assert the_mask(tmp_path / "again", ".dcm").read_bytes() == seg.read_bytes()
    assert not list((tmp_path / "seg").glob(".case*"))
    for predictions, references in (("seg", "nii"), ("nii", "seg"), ("seg", "again")):
        given = ["--predictions", tmp_path / predictions, "--references", tmp_path / references]
        code, out, err = medseg("evaluate", *given, "--metrics", "dice", "--json")
        assert code == 0, err
        (row,) = json.loads(out)["cases"]
        scores = [value for label in row["labels"].values() for key, value in label.items() if key == "dice"]
        assert all(value in (1, None) for value in scores) and 1 in scores


def test_regions_stay_as_they_overlap(series, tmp_path, medseg):
    model = package(tmp_path / "model", NESTED, "sigmoid")
    given = ["infer", series, "-m", model, "-o", tmp_path / "out", "--format", "dcm", "--probabilities"]
    code, _, err = medseg(*given)
    assert code == 0, err
    name = the_mask(tmp_path / "out", ".dcm").name
    table = ((("left",), 1), (("right",), 2), (("left", "right"), 3))
    image = open_scan(series)
    read = whole(open_label(tmp_path / "out" / name, image, table))
    shares = whole(open_label(tmp_path / "out" / "probabilities" / name, image, table))
    assert 3 in read and read[read > 0].min() < 3
    np.testing.assert_array_equal(read, shares)


def test_steps_after_the_network_reach_the_seg(series, tmp_path, medseg):
    steps = tmp_path / "steps.yaml"
    steps.write_text("- {name: keep_largest, count: 1}\n")
    model = package(tmp_path / "model", ORGANS, "softmax")
    found = {}
    for form in ("nii.gz", "dcm"):
        folder = tmp_path / form
        code, _, err = medseg("infer", series, "-m", model, "-o", folder, "--format", form, "--postprocess", steps)
        assert code == 0, err
        found[form] = the_mask(folder, f".{form}")
    seg = open_label(found["dcm"], open_scan(series), table_of(declared(ORGANS)))
    np.testing.assert_array_equal(whole(seg), whole(open_scan(found["nii.gz"])))


def test_what_is_no_dicom_series_is_refused_at_once(series, tmp_path, refused):
    import nibabel as nib

    model = package(tmp_path / "model", ORGANS, "softmax")
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii.gz")
    out = ["-m", model, "-o", tmp_path / "out", "--format", "dcm"]
    assert "another format" in refused("infer", tmp_path / "a.nii.gz", *out)
    assert "a part of one" in refused("infer", series, *out, "--box", "0:4,0:4,0:4")
    assert "numbered objects" in refused("infer", series, *out, "--instances")
    assert "uint8" in refused("infer", series, *out, "--probabilities", "--probability-type", "float32")
    assert not list((tmp_path / "out").glob("*.dcm"))
