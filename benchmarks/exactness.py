"""How many voxels get another label than one pass over the whole scan in memory gives them: 0 is wanted everywhere.

    python benchmarks/exactness.py [--side 72] [--only formats tiles views windows]

    formats   each format that is read, and each that is written, by ``medseg infer --tile-overlap``
    tiles     tiles of several sizes, batches, --workers 2, killed and started again, --box, --tta
    views     an oblique and anisotropic NIfTI that is turned to RAS, resampled and normalised, against MONAI in memory:
              Orientation, Spacing, NormalizeIntensity, network, and the inverses of the two
    windows   sliding windows against ``monai.inferers.sliding_window_inference`` on the whole array

The reference never touches medseg's scans, tilings or sinks: files are written and masks are read by the formats' own
libraries, the border is NumPy's mirror, and the network sees the whole at once. Voxels whose two largest probabilities
differ by less than 1e-5 are ties, which rounding decides; they are counted apart. Every class holds a good part of the
voxels, and neighbouring voxels differ often. Results go to benchmarks/results/exactness.json.
Small: --side 40 --results /tmp/exactness.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import monai.transforms as mt
import nibabel
import numpy as np
import SimpleITK
import tifffile
import torch
import zarr
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from workbench import MEDSEG, RESULTS, account, random_network, save, scratch, smooth_noise, write_model

from medseg.cli.app import main as medseg
from medseg.datasets.labels import Labels
from medseg.inference.journal import Journal, journal_of
from medseg.networks.network import Network
from medseg.scans.preprocessing import Normalization, Preprocessing

LABELS = Labels({"background": 0, "first": 7, "second": 200})
NEAR = 1e-5


@dataclass
class Bench:
    """A folder, the models in it, and the rows so far."""

    folder: Path
    side: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0

    def infer(self, model: str, scan: Path, *options: str) -> Path:
        """Runs ``medseg infer`` in this process; returns the mask.

        Raises:
            RuntimeError: where it fails.
        """
        out = self.out()
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = medseg(self.words(model, scan, out, options))
        if code:
            raise RuntimeError(f"{scan.name} {' '.join(options)}: {told.getvalue()}")
        return mask_in(out)

    def out(self) -> Path:
        """A folder for one more run."""
        self.runs += 1
        return self.folder / f"out{self.runs}"

    def words(self, model: str, scan: Path, out: Path, options: Sequence[str]) -> list[str]:
        """The command line of a run."""
        return ["infer", "-m", str(self.folder / model), str(scan), "-o", str(out), "--device", "cpu", *options]

    def add(self, kind: str, name: str, found: NDArray, wanted: Tensor) -> None:
        """Compares (\\*n) labels with (K, \\*n) probabilities."""
        top = wanted.topk(2, dim=0)
        ties = (top.values[0] - top.values[1] < NEAR).numpy()
        labels = LABELS.decode(top.indices[0].numpy())
        if found.shape != labels.shape:
            raise RuntimeError(f"{kind}, {name}: the mask is {found.shape}, not {labels.shape}")
        differs = found != labels
        shares = [round(float((labels == value).mean()), 3) for value in LABELS.file_values]
        row = {"kind": kind, "path": name, "voxels": labels.size, "differing": int((differs & ~ties).sum())}
        self.rows.append(
            {**row, "ties": int(ties.sum()), "differing_ties": int((differs & ties).sum()), "shares": shares}
        )
        print(f"{kind:8} {name:40} {row['differing']} of {labels.size} differ", flush=True)

    def try_to_add(self, kind: str, name: str, run: Any, wanted: Tensor) -> None:
        """As :meth:`add`; where the run fails, that is the result."""
        try:
            self.add(kind, name, run(), wanted)
        except RuntimeError as error:
            self.rows.append({"kind": kind, "path": name, "failed": str(error)})
            print(f"{kind:8} {name:40} FAILED: {error}", flush=True)


# The reference


def whole(network: Network, image: NDArray) -> Tensor:
    """(C, \\*n) as the network sees it → (K, \\*n) logits of one pass over it, its border mirrored."""
    footprint, shape = network.footprint, image.shape[1:]
    window = footprint.input_shape([-(-n // s) * s for n, s in zip(shape, footprint.step, strict=True)])
    border = [(h, w - n - h) for h, w, n in zip(footprint.halo, window, shape, strict=True)]
    seen = np.pad(image, [(0, 0), *border], mode="reflect")
    with torch.inference_mode():
        logits = network.core(torch.from_numpy(seen)[None])[0]
    return logits[(slice(None), *map(slice, shape))]


def standardised(voxels: NDArray) -> NDArray[np.float32]:
    """(\\*n) → (1, \\*n), by MONAI."""
    return mt.NormalizeIntensity()(voxels[None].astype(np.float32)).numpy()


def of_whole(network: Network, voxels: NDArray) -> Tensor:
    """(\\*n) → (K, \\*n) probabilities."""
    return whole(network, standardised(voxels)).softmax(0)


def balanced(spec: dict[str, Any], seed: int, voxels: NDArray) -> Network:
    """A random network whose classes are about equally frequent."""
    network = random_network({**spec, "in_channels": 1, "out_channels": 3}, seed)
    with torch.no_grad():
        middle = whole(network, standardised(voxels)).flatten(1).median(dim=1).values
        network.score.bias -= middle
    return network


def package(
    bench: Bench, name: str, spec: dict[str, Any], voxels: NDArray, views: Preprocessing, seed: int = 0
) -> Network:
    network = balanced(spec, seed, voxels)
    write_model(bench.folder / name, network, {**spec, "in_channels": 1, "out_channels": 3}, views, LABELS)
    return network


# Files, by their formats' own libraries


def mask_in(out: Path) -> Path:
    (mask,) = (p for p in out.iterdir() if p.suffix != ".json" and p.name != "probabilities")
    return mask


def mask_of(path: Path, axes: str) -> NDArray:
    """A mask as an array of these axes."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        names = [axis["name"].upper() for axis in group.attrs["ome"]["multiscales"][0]["axes"]]
        return _turned(group["0"][:], "".join(names), axes)
    return np.asarray(nibabel.load(path).dataobj)


def _turned(array: NDArray, have: str, want: str) -> NDArray:
    return array.transpose([have.index(letter) for letter in want])


def nifti(path: Path, voxels: NDArray, affine: NDArray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def volumes(folder: Path, voxels: NDArray) -> Iterator[tuple[str, Path, str]]:
    """(X, Y, Z) in every format for volumes: what it is called, its path, and the axes that medseg takes it by."""
    for suffix in ("nii", "nii.gz"):
        yield suffix, nifti(folder / f"volume.{suffix}", voxels), "XYZ"
    image = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0))
    for name, suffix, compressed in (
        ("mha", "mha", False),
        ("mha compressed", "z.mha", True),
        ("mhd with raw", "mhd", False),
        ("nrrd raw", "nrrd", False),
        ("nrrd gzip", "z.nrrd", True),
    ):
        SimpleITK.WriteImage(image, str(folder / f"itk.{suffix}"), useCompression=compressed)
        yield name, folder / f"itk.{suffix}", "XYZ"
    slices = voxels.transpose(2, 1, 0)
    tifffile.imwrite(folder / "pages.tif", slices, photometric="minisblack")
    yield "tif, pages", folder / "pages.tif", "ZYX"
    how: dict[str, Any] = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(folder / "big.tif", slices, bigtiff=True, **how)
    yield "BigTIFF, tiled", folder / "big.tif", "ZYX"
    for name, more in (
        ("Zarr 2", {"chunks": (13, 16, 20), "zarr_format": 2}),
        ("Zarr 3", {"chunks": (16, 24, 11), "zarr_format": 3}),
        ("Zarr 3, sharded", {"chunks": (8, 8, 8), "shards": (32, 16, 24), "zarr_format": 3}),
    ):
        path = folder / f"{name.replace(' ', '_')}.zarr"
        zarr.create_array(path, shape=slices.shape, dtype=slices.dtype, **more)[:] = slices
        yield name, path, "ZYX"
    group = zarr.open_group(folder / "volume.ome.zarr", mode="w")
    group.create_array("0", shape=slices.shape, chunks=(16,) * 3, dtype=slices.dtype)[:] = slices
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    yield "OME-Zarr", folder / "volume.ome.zarr", "ZYX"


# The paths


def formats(bench: Bench) -> None:
    plain = Preprocessing(orientation=None)
    spec = {"name": "unet", "dims": 3, "depth": 2, "width": 4}
    voxels = smooth_noise((bench.side, bench.side - 9, bench.side - 20), 1, 1.5).astype(np.int16) * 5 - 300
    network = package(bench, "formats3d", spec, voxels, plain)
    wanted = {"XYZ": of_whole(network, voxels), "ZYX": of_whole(network, voxels.transpose(2, 1, 0))}
    tile = ("--tile-overlap", "--tile", "68")
    for name, path, axes in volumes(bench.folder, voxels):
        read = lambda p=path, a=axes: mask_of(bench.infer("formats3d", p, *tile), a)  # noqa: E731
        bench.try_to_add("formats", f"{name} in", read, wanted[axes])
    source = bench.folder / "volume.nii"
    for format in ("nii", "nii.gz", "tif", "zarr"):
        read_out = lambda f=format: mask_of(bench.infer("formats3d", source, *tile, "--format", f), "XYZ")  # noqa: E731
        bench.try_to_add("formats", f"nii in, {format} out", read_out, wanted["XYZ"])
    picture = smooth_noise((3 * bench.side + 7, 4 * bench.side), 2, 2.0)
    flat = package(bench, "formats2d", {**spec, "dims": 2}, picture, plain)
    Image.fromarray(picture).save(bench.folder / "picture.png")
    tifffile.imwrite(bench.folder / "picture.tif", picture, bigtiff=True, tile=(64, 64), compression="zlib")
    for name in ("picture.png", "picture.tif"):
        for format in ("png", "tif", "zarr"):
            read_2d = lambda n=name, f=format: mask_of(  # noqa: E731
                bench.infer("formats2d", bench.folder / n, "--tile-overlap", "--tile", "108", "--format", f), "YX"
            )
            bench.try_to_add("formats", f"{name} in, {format} out", read_2d, of_whole(flat, picture))


def tiles(bench: Bench) -> None:
    spec = {"name": "unet", "dims": 3, "depth": 2, "width": 4}
    voxels = smooth_noise((bench.side + 3, bench.side, bench.side - 10), 3, 1.5)
    network = package(bench, "tiles", spec, voxels, Preprocessing(orientation=None))
    scan = nifti(bench.folder / "tiles.nii.gz", voxels)
    wanted = of_whole(network, voxels)
    paths = {
        "tile by plan": ("--tile-overlap",),
        "one pass": ("--whole",),
        "tile 44": ("--tile", "44"),
        "tile 68,44,52, batch 3": ("--tile", "68,44,52", "--batch", "3"),
        "tile 52, batch 8, 1 thread": ("--tile", "52", "--batch", "8", "--threads", "1"),
        "tile 60, workers 2": ("--tile", "60", "--workers", "2"),
        "tile 60, workers 2, batch 2, zarr": ("--tile", "60", "--workers", "2", "--batch", "2", "--format", "zarr"),
    }
    for name, options in paths.items():
        run = lambda o=options: mask_of(bench.infer("tiles", scan, *o), "XYZ")  # noqa: E731
        bench.try_to_add("tiles", name, run, wanted)
    bench.try_to_add("tiles", "tile 44, killed and resumed", lambda: _torn(bench, scan), wanted)
    sides = [(n // 5, n - n // 4) for n in voxels.shape]
    box = ",".join(f"{a}:{b}" for a, b in sides)
    part = wanted[(slice(None), *(slice(a, b) for a, b in sides))]
    bench.try_to_add(
        "tiles", f"box {box}", lambda: mask_of(bench.infer("tiles", scan, "--tile", "52", "--box", box), "XYZ"), part
    )
    for turns in ("flips", "rotations"):
        run = lambda t=turns: mask_of(bench.infer("tiles", scan, "--tile", "60", "--tta", t), "XYZ")  # noqa: E731
        bench.try_to_add("tiles", f"tta {turns}", run, turned_mean(network, standardised(voxels), turns).softmax(0))


def _torn(bench: Bench, scan: Path) -> NDArray:
    """The mask of a run that is killed in its middle, and started again."""
    out = bench.out()
    words = [*MEDSEG, *bench.words("tiles", scan, out, ("--tile", "44", "--batch", "1"))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and Journal.count(journal_of(out / scan.name)) < 20:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(words, capture_output=True, text=True)
    if again.returncode or "going on" not in again.stderr:
        raise RuntimeError(f"was not resumed: {again.stderr}")
    return mask_of(mask_in(out), "XYZ")


def turned_mean(network: Network, image: NDArray, turns: str) -> Tensor:
    """The mean of the whole's logits over flips, and over quarter turns of the first two axes."""
    footprint, shape = network.footprint, image.shape[1:]
    window = footprint.input_shape([-(-n // s) * s for n, s in zip(shape, footprint.step, strict=True)])
    border = [(h, w - n - h) for h, w, n in zip(footprint.halo, window, shape, strict=True)]
    seen = torch.from_numpy(np.pad(image, [(0, 0), *border], mode="reflect"))[None]
    looks = []
    with torch.inference_mode():
        for exchanged, *flipped in product((False, True) if turns == "rotations" else (False,), *[(False, True)] * 3):
            axes = [2 + a for a, flip in enumerate(flipped) if flip]
            x = seen.transpose(2, 3) if exchanged else seen
            y = network.core(x.flip(axes)).flip(axes)
            looks.append(y.transpose(2, 3) if exchanged else y)
    return torch.stack(looks).mean(0)[0][(slice(None), *map(slice, shape))]


def oblique(shape: Sequence[int]) -> NDArray[np.float64]:
    """An affine of unequal spacings, tilted about two axes, with axes that run to the left and the front."""
    a, b = np.radians(17), np.radians(-11)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-0.8, -0.7, 2.6])
    affine[:3, 3] = [31.5, -12.25, 7]
    return affine[:, [2, 0, 1, 3]]  # the slices come first in the file


def monai_chain(run: Any, voxels: NDArray, affine: NDArray, spacing: Sequence[float] | None) -> Tensor:
    """(\\*n) of a file → (K, \\*n) probabilities on the file's grid, by MONAI's transforms and their inverses.

    Args:
        run: (1, \\*m) as the network sees it → (K, \\*m) logits.
        voxels: of the file.
        affine: of the file.
        spacing: the model's, or None.
    """
    volume = MetaTensor(torch.from_numpy(voxels[None].astype(np.float64)), affine=torch.from_numpy(affine))
    orient = mt.Orientation("RAS", labels=None)
    space = mt.Spacing(spacing, dtype=torch.float64) if spacing else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = orient(volume)
        if space is not None:
            seen = space(seen)
        image = mt.NormalizeIntensity()(seen.float().as_tensor()).numpy()
        shares = MetaTensor(run(image).softmax(0).double()).copy_meta_from(seen)
        back = shares if space is None else space.inverse(shares)
        return orient.inverse(back).as_tensor()


def views(bench: Bench) -> None:
    shape = (bench.side // 2, bench.side + 5, bench.side - 4)
    affine = oblique(shape)
    voxels = smooth_noise(shape, 5, 1.5).astype(np.int16) * 9 - 1000
    scan = nifti(bench.folder / "oblique.nii.gz", voxels, affine)
    valid = {"name": "unet", "dims": 3, "depth": 2, "width": 4}
    for spacing in (None, [1.1, 1.3, 1.7], [0.6, 0.9, 2.0]):
        name = "turned to RAS" if spacing is None else f"RAS, resampled to {spacing} mm"
        preprocessing = Preprocessing(orientation="RAS", spacing_mm=spacing, normalize=Normalization(kind="zscore"))
        model = f"oblique{bench.runs}"
        network = package(bench, model, valid, voxels, preprocessing)
        wanted = monai_chain(lambda x, n=network: whole(n, x), voxels, affine, spacing)
        for how, options in (
            ("tile by plan", ("--tile-overlap",)),
            ("tile 52, batch 3", ("--tile", "52", "--batch", "3")),
            ("tile 60, workers 2, zarr", ("--tile", "60", "--workers", "2", "--format", "zarr")),
        ):
            run = lambda o=options, m=model: mask_of(bench.infer(m, scan, *o), "XYZ")  # noqa: E731
            bench.try_to_add("views", f"{name}, {how}", run, wanted)
        sides = [(n // 5, n - n // 4) for n in shape]
        part = wanted[(slice(None), *(slice(a, b) for a, b in sides))]
        box = ",".join(f"{a}:{b}" for a, b in sides)
        run = lambda m=model, b=box: mask_of(bench.infer(m, scan, "--tile", "52", "--box", b), "XYZ")  # noqa: E731
        bench.try_to_add("views", f"{name}, box", run, part)


def windows(bench: Bench) -> None:
    spec = {"name": "unet", "dims": 3, "depth": 2, "width": 4, "padding": "same"}
    voxels = smooth_noise((bench.side + 3, bench.side - 6, bench.side - 10), 7, 1.5)
    affine = oblique(voxels.shape)
    straight, tilted = (
        nifti(bench.folder / "straight.nii.gz", voxels),
        nifti(bench.folder / "tilted.nii.gz", voxels, affine),
    )
    for norm in ("none", "instance"):
        kind = {**spec, "norm": norm}
        for spacing in (None, [1.1, 1.3, 1.7]):
            model = f"windows {norm} {spacing}"
            orientation = None if spacing is None else "RAS"
            network = package(bench, model, kind, voxels, Preprocessing(orientation=orientation, spacing_mm=spacing))
            for name, roi, overlap, mode, more in (
                ("gaussian 0.5", 32, 0.5, "gaussian", ()),
                ("gaussian 0.25, batch 3", 28, 0.25, "gaussian", ("--batch", "3")),
                ("constant 0.6, workers 2", 24, 0.6, "constant", ("--workers", "2")),
                ("roi larger than the scan", 4 * (bench.side // 4 + 8), 0.5, "gaussian", ()),
            ):

                def slide(x: NDArray, n: Network = network, r: int = roi, o: float = overlap, m: str = mode) -> Tensor:
                    with torch.inference_mode():
                        return sliding_window_inference(torch.from_numpy(x)[None], (r,) * 3, 1, n, o, mode=m)[0]

                scan = straight if spacing is None else tilted
                wanted = (
                    slide(standardised(voxels)).softmax(0)
                    if spacing is None
                    else monai_chain(slide, voxels, affine, spacing)
                )
                options = ["--sliding-window", "--roi", str(roi), "--overlap", str(overlap), "--blend", mode, *more]
                run = lambda o=options, m=model, s=scan: mask_of(bench.infer(m, s, *o), "XYZ")  # noqa: E731
                grid = "" if spacing is None else "oblique, resampled, "
                bench.try_to_add("windows", f"{grid}norm {norm}, {name}", run, wanted)


KINDS = {"formats": formats, "tiles": tiles, "views": views, "windows": windows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=72, help="about the scans' side")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS / "exactness.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with scratch() as folder:
        bench = Bench(folder, given.side)
        for kind in given.only:
            KINDS[kind](bench)
    keys = ("voxels", "differing", "ties", "differing_ties")
    sums = {key: sum(row.get(key, 0) for row in bench.rows) for key in keys}
    failed = [row["path"] for row in bench.rows if "failed" in row]
    save(given.results, {**account(), "paths": len(bench.rows), "failed": failed, **sums, "rows": bench.rows})


if __name__ == "__main__":
    main()
