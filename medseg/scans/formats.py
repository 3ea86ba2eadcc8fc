"""Which suffix is which format, and who reads and writes it."""

from __future__ import annotations

from pathlib import Path

READERS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".hdr": "nifti",
    ".img": "nifti",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".svs": "tiff",
    ".ndpi": "tiff",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".gif": "picture",
    ".bmp": "picture",
    ".mha": "itk",
    ".mhd": "itk",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".zarr": "zarr",
    ".ome.zarr": "zarr",
    ".dcm": "dicom",
    ".dcm.gz": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
"""The module of this package that reads each suffix; folders and files of no suffix may hold DICOM too."""

WRITERS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".tif": "tiff_sink",
    ".tiff": "tiff_sink",
    ".ome.tif": "tiff_sink",
    ".ome.tiff": "tiff_sink",
    ".png": "png",
    ".zarr": "zarr_sink",
    ".ome.zarr": "zarr_sink",
    ".dcm": "dicom_seg_sink",
}
"""The module of this package that writes each suffix."""

SUFFIXES = tuple(READERS)
"""Every suffix that :func:`open_scan` knows."""


def suffix_of(path: str | Path) -> str:
    """The longest known suffix of a name, in lower case, or «» where there is none.

    >>> suffix_of("a.b/ct.NII.gz")
    '.nii.gz'
    """
    name = Path(path).name.lower()
    known = [s for s in SUFFIXES if name.endswith(s) and len(name) > len(s)]
    return max(known, key=len, default="")


def stem_of(path: str | Path) -> str:
    """A file's name without its known suffix, which is taken off whole; another suffix is taken off as usual.

    >>> stem_of("out/ct_01.nii.gz"), stem_of("cells.v2.ome.zarr")
    ('ct_01', 'cells.v2')
    """
    name = Path(path).name
    suffix = suffix_of(name)
    return name[: len(name) - len(suffix)] if suffix else Path(name).stem
