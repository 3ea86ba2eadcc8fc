import json

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scan_laws import numbers

from medseg.scans.info import describe
from medseg.scans.scan import open_scan


def test_a_scan_in_words_and_numbers(tmp_path):
    array = numbers((5, 6, 7), "i2")
    nib.save(nib.Nifti1Image(array, np.diag([-2, -2, 3, 1])), tmp_path / "a.nii.gz")
    said = describe(open_scan(tmp_path / "a.nii.gz"))
    assert said == {
        "name": str(tmp_path / "a.nii.gz"),
        "axes": "XYZ",
        "shape": [5, 6, 7],
        "channels": 1,
        "spacing": [2.0, 2.0, 3.0],
        "unit": "mm",
        "unit_stated": False,
        "spacing_mm": [2.0, 2.0, 3.0],
        "orientation": "LPS",
        "tilt_deg": 0.0,
        "dtype": "int16",
        "range": [int(array.min()), int(array.max())],
        "nonfinite": 0,
    }
    json.dumps(said, allow_nan=False)


def test_microscopy_has_a_unit_and_no_orientation(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", numbers((20, 30), "u1"), imagej=True, resolution=(4, 2), metadata={"unit": "um"}
    )
    said = describe(open_scan(tmp_path / "a.tif"))
    assert (said["spacing"], said["unit"], said["orientation"]) == ([0.5, 0.25], "um", None)
    assert said["spacing_mm"] == pytest.approx([5e-4, 2.5e-4])


def test_what_is_not_finite_is_counted_and_left_out_of_the_range():
    array = np.array([[[1.5, np.nan], [-np.inf, -2.0]]], np.float32)
    said = describe(open_scan(array))
    assert (said["range"], said["nonfinite"]) == ([-2.0, 1.5], 2)
    assert describe(open_scan(array * np.nan))["range"] is None
