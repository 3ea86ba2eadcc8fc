"""Every file of some folders: read as an independent reader has it, geometry and values, or refused in one sentence.

    python benchmarks/readers.py FOLDER... [--quiet] [--results FILE]

    equal      as the independent reader has it: nibabel (NIfTI), SimpleITK (MetaImage, NRRD), pydicom slice by slice
               (DICOM files, and folders of them as one series), tifffile, Pillow
    alone      read, and the independent reader cannot
    refused    one sentence of at most 500 characters
    differs    read, and the independent reader has other voxels or puts them elsewhere (more than 0.1 % of a voxel; for
               DICOM more than medseg's own tolerance for unevenly rounded slices)
    traceback  another exception than medseg's own; crash: the process died; hang: more than 60 seconds

Wanted are 0 of the last four. A table of all files is printed; benchmarks/results/readers.json keeps counts alone,
since names of files may be names of patients.
"""

from __future__ import annotations

import argparse
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
import tifffile
from numpy.typing import NDArray
from PIL import Image
from workbench import RESULTS, account, save

from medseg import Box, open_scan
from medseg.errors import MAX_LENGTH, MedsegError
from medseg.scans.contents import is_dicom, opened
from medseg.scans.dicom_geometry import tolerance_mm
from medseg.scans.scan import READERS, Scan, suffix_of
from medseg.scans.units import MILLIMETRES

SECONDS = 60
SHARE = 1e-3
LPS = np.diag([-1.0, -1.0, 1.0])
OUTCOMES = ("equal", "alone", "refused", "differs", "traceback", "crash", "hang")
MEASURED = ("CT", "MR", "PT", "NM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--quiet", action="store_true", help="print no table of files")
    parser.add_argument("--results", type=Path, default=RESULTS / "readers.json")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for folder in options.folders:
        counts[folder.name] = Counter()
        for path in sorted(items(folder)):
            outcome, words = judged(path)
            counts[folder.name][outcome] += 1
            if not options.quiet:
                print(f"{outcome:<10}{path.relative_to(folder.parent)}  {words}")
    rows = {name: {outcome: count[outcome] for outcome in OUTCOMES} for name, count in counts.items()}
    total = {outcome: sum(row[outcome] for row in rows.values()) for outcome in OUTCOMES}
    command = " ".join(["python benchmarks/readers.py", *rows])
    save(options.results, {**account(), "command": command, "folders": rows, "all": total})


def items(folder: Path) -> Iterator[Path]:
    """All files, and all folders that hold DICOM files."""
    for path in folder.rglob("*"):
        if path.is_file() or any(file.is_file() and is_dicom(file) for file in path.iterdir()):
            yield path


def judged(path: Path) -> tuple[str, str]:
    """What becomes of one file, in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_judge, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    said: list[tuple[str, str]] = []
    try:
        while ours.poll(SECONDS):
            said.append(ours.recv())
    except EOFError:
        process.join()
        return said[-1] if said else ("crash", f"exit code {process.exitcode}")
    process.kill()
    return said[-1] if said else ("hang", f"more than {SECONDS} s")


def _judge(path: Path, pipe: Connection) -> None:
    """Sends «alone» as soon as medseg has read it, and how it compares once the independent reader is done too."""
    warnings.simplefilter("ignore")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        scan = open_scan(path)
        voxels = scan.read(Box.of(scan.shape))
    except MedsegError as error:
        sentence = str(error)
        one = len(sentence) <= MAX_LENGTH and "\n" not in sentence
        pipe.send(("refused" if one else "traceback", sentence.replace(str(path), path.name)))
        return
    except Exception as error:
        pipe.send(("traceback", repr(error)))
        return
    about = f"{scan.axes} {scan.shape} {scan.channels} {scan.dtype}"
    pipe.send(("alone", about))
    try:
        differs = _oracle(path)(path, scan, voxels)
    except Exception as error:
        pipe.send(("alone", f"{about}; the independent reader: {type(error).__name__}"))
        return
    pipe.send(("differs" if differs else "equal", f"{about} {differs}"))


def _oracle(path: Path) -> Callable[[Path, Scan, NDArray], str]:
    kind = READERS.get(suffix_of(path), "dicom")
    return {"nifti": _nifti, "itk": _itk, "dicom": _dicom, "tiff": _tiff, "picture": _picture}[kind]


def _nifti(path: Path, scan: Scan, voxels: NDArray) -> str:
    image: Any = nibabel.load(path)
    scale = MILLIMETRES[scan.unit] if scan.unit in ("m", "mm", "um") else 1.0
    return _elsewhere(scan, np.diag([scale] * 3 + [1]) @ image.affine) or _other(voxels, _structured(image))


def _structured(image: Any) -> NDArray:
    values = np.asarray(image.dataobj)
    return np.stack([values[name] for name in values.dtype.names], -1) if values.dtype.names else values


def _itk(path: Path, scan: Scan, voxels: NDArray) -> str:
    image = SimpleITK.ReadImage(str(path))
    affine, axes = np.eye(4), image.GetDimension()
    affine[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[:axes, 3] = image.GetOrigin()
    if scan.anatomical or path.suffix.lower() in (".mha", ".mhd"):
        affine[:3] = LPS @ affine[:3]  # a NRRD without a space says nothing of the patient
    values = SimpleITK.GetArrayFromImage(image)
    spatial = values.transpose(*range(axes - 1, -1, -1), *range(axes, values.ndim))
    return _elsewhere(scan, affine) or _other(voxels, spatial)


def _tiff(path: Path, scan: Scan, voxels: NDArray) -> str:
    return _other(voxels, tifffile.imread(path))


def _picture(path: Path, scan: Scan, voxels: NDArray) -> str:
    if scan.dtype == np.uint16:  # of whose colours Pillow makes 8 bits
        return _other(voxels, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
    image = Image.open(path)
    return _other(voxels, np.asarray(image.convert("RGB") if image.mode == "P" and scan.channels == 3 else image))


def _dicom(path: Path, scan: Scan, voxels: NDArray) -> str:
    """Each slice's corners and values, from its own header alone."""
    files = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file() and is_dicom(p)]
    slices = [one for file in files for one in _slices(file)]
    if len(scan.shape) == 2:
        ((values, place),) = slices
        corners = [(0, 0), (scan.shape[0] - 1, scan.shape[1] - 1)]
        if place is not None:
            off = [place(i, j) - (scan.affine @ [i, j, 0, 1])[:3] for i, j in corners]
            if np.linalg.norm(off, axis=1).max() > SHARE * min(scan.spacing_mm):
                return "lies elsewhere"
        return _other(voxels, values)
    normal = np.cross(scan.affine[:3, 0], scan.affine[:3, 1])
    normal *= np.sign(normal @ scan.affine[:3, 2])
    slices.sort(key=lambda one: one[1](0, 0) @ normal)
    if len(slices) != scan.shape[2]:
        return f"has {len(slices)} slices"
    for k, (values, place) in enumerate(slices):
        for i, j in [(0, 0), (scan.shape[1] - 1, 0), (0, scan.shape[0] - 1)]:
            if np.linalg.norm(place(i, j) - (scan.affine @ [j, i, k, 1])[:3]) > tolerance_mm(scan.spacing_mm[2]):
                return f"slice {k} lies elsewhere"
        if _other(voxels[..., k], values.swapaxes(0, 1)):
            return f"slice {k} has other voxels"
    return ""


def _slices(file: Path) -> list[tuple[NDArray, Any]]:
    """(rows, columns[, 3]) values and (row, column) → RAS+ millimetres, of each frame of an image."""
    with opened(file, file.name.endswith(".gz")) as stream:
        header = pydicom.dcmread(stream)
    if header.get("Modality") in ("SEG", "RTSTRUCT", "SR", "PR") or "PixelData" not in header:
        return []
    pixels = header.pixel_array
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [(_valued(pixels, header, header), _placed(header, header, header))]
    shared = header.SharedFunctionalGroupsSequence[0]
    made = []
    for values, frame in zip(pixels, header.PerFrameFunctionalGroupsSequence, strict=True):

        def item(keyword: str, frame: Any = frame) -> Any:
            found = frame.get(keyword) or shared.get(keyword)
            return found[0] if found else header

        place = _placed(item("PlanePositionSequence"), item("PlaneOrientationSequence"), item("PixelMeasuresSequence"))
        made.append((_valued(values, header, item("PixelValueTransformationSequence")), place))
    return made


def _valued(pixels: NDArray, header: Any, scale: Any) -> NDArray:
    values = pixels.astype(np.float64)
    if header.PhotometricInterpretation == "MONOCHROME1" and header.get("Modality") not in MEASURED:
        values = (2**header.BitsStored - 1 if header.PixelRepresentation == 0 else -1) - values
    return values * float(scale.get("RescaleSlope") or 1) + float(scale.get("RescaleIntercept") or 0)


def _placed(position: Any, orientation: Any, measures: Any) -> Any:
    if not all(
        key in where
        for key, where in (
            ("ImagePositionPatient", position),
            ("ImageOrientationPatient", orientation),
            ("PixelSpacing", measures),
        )
    ):
        return None
    first = np.array(position.ImagePositionPatient, float)
    along_row, along_column = np.reshape(orientation.ImageOrientationPatient, (2, 3)).astype(float)
    rows_mm, columns_mm = map(float, measures.PixelSpacing)
    return lambda i, j: LPS @ (first + i * along_column * rows_mm + j * along_row * columns_mm)


def _elsewhere(scan: Scan, affine: NDArray) -> str:
    """Whether a corner lies elsewhere, by more than a small part of a voxel."""
    axes = len(scan.shape)
    far = np.array([[0, 0, 0, 1], [*(n - 1 for n in scan.shape), *[0] * (3 - axes), 1]], float).T
    off = np.linalg.norm(((scan.affine - affine) @ far)[:3], axis=0).max()
    return "" if off <= SHARE * min(scan.spacing_mm) else f"lies {off:.4g} mm elsewhere"


def _other(voxels: NDArray, values: NDArray) -> str:
    ours = np.squeeze(np.moveaxis(voxels, 0, -1))
    theirs = np.squeeze(values)
    if ours.shape != theirs.shape:
        return f"the independent reader has the shape {theirs.shape}"
    same = np.allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=1e-5, atol=1e-4, equal_nan=True)
    return "" if same else "other voxels"


if __name__ == "__main__":
    main()
