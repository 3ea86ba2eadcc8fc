"""Tiny data sets of every kind that a plan must tell apart."""

import json

import nibabel as nib
import numpy as np
from PIL import Image

from medseg.datasets.labels import Labels
from medseg.planning.evidence import Evidence
from medseg.planning.measure import CaseMeasure, ClassMeasure


def blob(shape, rng):
    """A box of foreground somewhere in the middle."""
    mask = np.zeros(shape, np.uint8)
    start = [int(rng.integers(n // 2 + 1)) for n in shape]
    mask[tuple(slice(a, a + max(n // 4, 1)) for a, n in zip(start, shape, strict=True))] = 1
    return mask


def volumes(root, shape, spacing, values, dtype, names=("background", "organ"), cases=3):
    """NIfTI volumes whose foreground and background have the intensities of ``values``."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    affine = np.diag([*spacing, 1.0])
    for i in range(cases):
        label = blob(shape, rng)
        image = np.where(label, values[1], values[0]) + rng.normal(0, 20, shape)
        image.flat[0] = values[0]
        nib.save(nib.Nifti1Image(image.astype(dtype), affine), root / "images" / f"case{i}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / "labels" / f"case{i}.nii.gz")
    labels = {name: value for value, name in enumerate(names)}
    (root / "dataset.json").write_text(json.dumps({"name": "set", "dims": 3, "labels": labels}))
    return root


def pictures(root, channels, size=(48, 40), cases=3):
    """PNG pictures, grey or in colours, with labels 0 and 255 and nothing that says what they are."""
    rng = np.random.default_rng(1)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(cases):
        label = blob(size, rng) * 255
        image = rng.integers(0, 100, (*size, channels)) + label[..., None] // 2
        Image.fromarray(image.astype(np.uint8).squeeze()).save(root / "images" / f"case{i}.png")
        Image.fromarray(label).save(root / "labels" / f"case{i}.png")
    return root


KINDS = {
    "ct": lambda root: volumes(root, (24, 24, 20), (1.0, 1.0, 1.5), (-1000, 240), np.int16),
    "thick": lambda root: volumes(root, (48, 48, 8), (0.8, 0.8, 5.0), (100, 400), np.float32),
    "sided": lambda root: volumes(root, (24, 20, 16), (1, 1, 1), (0, 90), np.uint8, ("background", "left kidney")),
    "rgb": lambda root: pictures(root, 3),
    "grey": lambda root: pictures(root, 1),
}


def evidence(shape=(35, 50, 36), spacing=(1.0, 1.0, 1.0), cases=20, names=("lesion",), sides=(12.0,), **given):
    """Evidence of equal cases, each with an object of every class."""
    dims = len(shape)
    classes = tuple(
        ClassMeasure(500, 1, ((side,) * dims,), side / 2) for side, _ in zip(sides * len(names), names, strict=False)
    )
    intensities = np.linspace(0, 100, 64, dtype=np.float32)[None]
    case = CaseMeasure(tuple(shape), tuple(spacing), classes, intensities)
    labels = Labels({"background": 0} | {name: k for k, name in enumerate(names, 1)})
    usual = {
        "name": "set", "path": "set", "layout": "folders", "declared": True, "channels": 1,
        "dtypes": {"float32": cases}, "modality": "other", "told": "no CT", "oriented": dims == 3, "millimetres": True,
        "left_out": {},
    }  # fmt: skip
    return Evidence(cases=(case,) * cases, labels=labels, **{**usual, **given})
