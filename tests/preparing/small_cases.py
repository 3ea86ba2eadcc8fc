"""Requests over files that are written for a test."""

import nibabel as nib
import numpy as np

from medseg.datasets.cases import Case
from medseg.datasets.labels import Labels
from medseg.preparing.request import requests_of
from medseg.scans.preprocessing import Preprocessing

LABELS = Labels({"background": 0, "organ": 1, "lesion": 3})
VIEWS = Preprocessing(spacing_mm=[1.5, 1.0, 1.0])


def write_case(folder, name, shape=(20, 31, 17), seed=0, channels=1):
    """An image of int16, lying LPS, and its label."""
    rng = np.random.default_rng(seed)
    size = shape if channels == 1 else (*shape, channels)
    affine = np.diag([-1.0, -1.0, 1.2, 1.0])
    label = rng.choice([0, 1, 3], shape, p=[0.7, 0.29, 0.01]).astype(np.uint8)
    for kind, voxels in (("image", rng.integers(-900, 900, size).astype(np.int16)), ("label", label)):
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}-{kind}.nii.gz")
    return Case(name, folder / f"{name}-image.nii.gz", folder / f"{name}-label.nii.gz", name)


def request(case, preprocessing=VIEWS, labels=LABELS, dataset="d" * 64):
    return requests_of([case], preprocessing, labels, dataset, workers=1)[0]
