"""DICOM files for tests, made with pydicom: single slices, series, enhanced multi-frame images."""

import gzip
import shutil

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AXIAL = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def ds(*values):
    """Numbers as decimal strings of 16 characters at most, as exact as that allows."""
    words = []
    for value in np.ravel(values):
        digits = next(d for d in range(16, 0, -1) if len(f"{value:.{d}g}") <= 16)
        words.append(f"{value:.{digits}g}")
    return words


def dataset(pixels, *, syntax=ExplicitVRLittleEndian, sop=CT, bits=None, photometric="MONOCHROME2", **elements):
    """A data set of (rows, columns), (frames, rows, columns) or (rows, columns, 3) pixels; elements by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = syntax
    how = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128, **how)
    made.SOPClassUID, made.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    made.Modality = {CT: "CT", MR: "MR", ENHANCED_MR: "MR"}.get(sop, "DX")
    made.SeriesInstanceUID, made.StudyInstanceUID = "1.2.3.4", "1.2.3"
    made.SamplesPerPixel = 3 if photometric.startswith(("RGB", "YBR")) else 1
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    spatial = pixels.shape[: 2 if made.SamplesPerPixel == 3 else None]
    made.Rows, made.Columns = spatial[-2:]
    if len(spatial) == 3:
        made.NumberOfFrames = spatial[0]
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def placed(position, directions=AXIAL, spacing=(1.0, 1.0)):
    """The elements that say where a slice lies: (x, y, z) in LPS+, two unit vectors, mm between rows and columns."""
    return {
        "ImagePositionPatient": ds(position),
        "ImageOrientationPatient": ds(directions),
        "PixelSpacing": ds(spacing),
    }


def write(path, made):
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, volume, affine, *, names=None, edit=None, **elements):
    """A series of slices whose voxels (X, Y, Z) lie where a RAS+ affine says; ``edit(k, dataset)`` changes a slice."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :2] / spacing[:2]).T
    for k in range(volume.shape[2]):
        position = lps[:3, 3] + k * lps[:3, 2]
        made = dataset(
            np.ascontiguousarray(volume[:, :, k].T),
            **{**placed(position, directions, (spacing[1], spacing[0])), "InstanceNumber": 1, **elements},
        )
        if edit is not None and edit(k, made) is False:
            continue
        write(folder / (f"{k}.dcm" if names is None else names[k]), made)
    return folder


def functional(**groups):
    """An item of functional groups: ``PlanePositionSequence={"ImagePositionPatient": ...}``."""
    item = Dataset()
    for keyword, elements in groups.items():
        inner = Dataset()
        for key, value in elements.items():
            setattr(inner, key, value)
        setattr(item, keyword, Sequence([inner]))
    return item


def enhanced(volume, affine, order=None, **elements):
    """An enhanced multi-frame image of voxels (X, Y, Z) where a RAS+ affine says, its frames in any order."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :2] / spacing[:2]).T
    order = range(volume.shape[2]) if order is None else order
    frames = np.ascontiguousarray(np.stack([volume[:, :, k].T for k in order]))
    made = dataset(frames, **{"sop": ENHANCED_MR, **elements})
    made.SharedFunctionalGroupsSequence = Sequence(
        [
            functional(
                PlaneOrientationSequence={"ImageOrientationPatient": ds(directions)},
                PixelMeasuresSequence={"PixelSpacing": ds(spacing[1], spacing[0]), "SliceThickness": "1"},
            )
        ]
    )
    made.PerFrameFunctionalGroupsSequence = Sequence(
        [functional(PlanePositionSequence={"ImagePositionPatient": ds(lps[:3, 3] + k * lps[:3, 2])}) for k in order]
    )
    return made


def zipped(path):
    """A gzip stream of a file beside it, which it replaces."""
    target = path.with_name(path.name + ".gz")
    with open(path, "rb") as source, gzip.open(target, "wb") as stream:
        shutil.copyfileobj(source, stream)
    path.unlink()
    return target


def tilted(spacing=(1.0, 1.0, 3.0), tilt_deg=18.0, origin=(-5.0, 7.0, 11.0)):
    """The RAS+ affine of a gantry that is tilted about the patient's left-right axis; slices follow along z."""
    angle = np.radians(tilt_deg)
    affine = np.eye(4)
    affine[:3, 0] = (-spacing[0], 0, 0)
    affine[:3, 1] = (0, -spacing[1] * np.cos(angle), -spacing[1] * np.sin(angle))
    affine[:3, 2] = (0, 0, spacing[2] / np.cos(angle))
    affine[:3, 3] = origin
    return affine
