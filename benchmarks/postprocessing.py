"""Instances of a large mask, from file to file: ``medseg postprocess --instances`` beside SciPy on the whole array.

    python benchmarks/postprocessing.py --shape 1024 1024 1024     (each shape adds its row)
    python benchmarks/postprocessing.py --shape 16384 16384
    python benchmarks/postprocessing.py --halo                     (a dense CRF: tiles with less than the exact halo)

The mask is a Zarr of uint8 blobs, whose chunks are links to eight; they don't fit each other, so that objects of all
shapes cross them. Both processes read the Zarr and write one of uint32, and must find the same number of objects.
SciPy's is one that loads the mask, runs ``scipy.ndimage.label`` with full connectivity and stores the labels. Peaks are
those of the processes, seen from outside; what Python and its libraries hold before anything is read is in them.
Results go to benchmarks/results/postprocessing.json. Small: --shape 192 192 192 --results /tmp/post.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from workbench import MEDSEG, RESULTS, account, load, save, scratch, smooth_noise, watch

CHUNK = {2: 512, 3: 64}
BLOCKS = 8
THRESHOLD = 150
MIB = 2**20


def make_mask(path: Path, shape: tuple[int, ...]) -> Path:
    """Blobs, in chunks that are links to eight."""
    side = CHUNK[len(shape)]
    how = {"chunks": (side,) * len(shape), "dtype": "uint8", "zarr_format": 3, "fill_value": 0}
    small = zarr.create_array(path.parent / "blocks.zarr", shape=(BLOCKS * side, *(side,) * (len(shape) - 1)), **how)
    for number in range(BLOCKS):
        small[number * side : (number + 1) * side] = smooth_noise((side,) * len(shape), number) > THRESHOLD
    zarr.create_array(path, shape=shape, **how)
    places = [range(-(-n // side)) for n in shape]
    drawn = np.random.default_rng(0).integers(BLOCKS, size=[len(r) for r in places])
    for place, number in zip(product(*places), drawn.flat, strict=True):
        target = path / "c" / "/".join(map(str, place))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path.parent / "blocks.zarr" / "c" / str(number) / "/".join("0" * (len(shape) - 1)), target)
    return path


def row_of(folder: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    mask = make_mask(folder / "mask.zarr", shape)
    ours = watch([*MEDSEG, "postprocess", str(mask), "-o", str(folder / "out"), "--instances", "--json"])
    objects = ours.json()["masks"][0]["steps"][0]["components"]
    peer = watch([sys.executable, __file__, "--one", str(mask)])
    theirs = peer.json()
    if objects != theirs["objects"]:
        raise RuntimeError(f"{objects} objects, and SciPy finds {theirs['objects']}")
    return {
        "shape": list(shape),
        "gigavoxels": round(math.prod(shape) / 1e9, 3),
        "objects": objects,
        "medseg": {"seconds": round(ours.seconds, 1), "peak_mib": round(ours.peak_bytes / MIB)},
        "scipy": {"seconds": round(peer.seconds, 1), "peak_mib": round(peer.peak_bytes / MIB), **theirs["stages"]},
        "time_ratio": round(ours.seconds / peer.seconds, 2),
        "memory_ratio": round(ours.peak_bytes / peer.peak_bytes, 3),
    }


def scipy_in_memory(path: str) -> None:
    """What is measured as SciPy's way, in a process of its own."""
    from scipy.ndimage import generate_binary_structure, label

    begun = time.perf_counter()
    mask = zarr.open_array(path, mode="r")[:]
    read = time.perf_counter()
    labels = np.empty(mask.shape, np.uint32)
    objects = label(mask, generate_binary_structure(mask.ndim, mask.ndim), output=labels)
    done = time.perf_counter()
    chunks = (CHUNK[mask.ndim],) * mask.ndim
    out = zarr.create_array(Path(path).with_name("peer.zarr"), shape=mask.shape, chunks=chunks, dtype="uint32")
    out[:] = labels
    stages = {"read": read - begun, "label": done - read, "write": time.perf_counter() - done}
    print(json.dumps({"objects": int(objects), "stages": {k: round(v, 1) for k, v in stages.items()}}))


def halos(side: int) -> dict[str, Any]:
    """How far the middle of a tile differs from one pass over the whole, by halo, on smooth noise."""
    import torch

    from medseg.postprocessing.crf import DenseCRF

    crf = DenseCRF()
    image = torch.from_numpy(smooth_noise((side, side), 0)).float()[None]
    share = torch.from_numpy(smooth_noise((side, side), 1, 6.0)).float() / 255
    given = torch.stack([1 - share, share])
    begun = time.perf_counter()
    whole = crf.refine(image, given)
    seconds = time.perf_counter() - begun
    core = 64
    first = (side - core) // 2
    rows = []
    for radii in (0, 0.5, 1, 2):
        halo = round(radii * crf.radius)
        window = slice(first - halo, first + core + halo)
        part = crf.refine(image[:, window, window], given[:, window, window])
        here, there = (
            part[1, halo : halo + core, halo : halo + core],
            whole[1, first : first + core, first : first + core],
        )
        rows.append(
            {
                "halo_in_radii": radii,
                "halo": halo,
                "largest_difference": float((here - there).abs().max()),
                "mean_difference": float((here - there).abs().mean()),
                "labels_that_differ": float(((here > 0.5) != (there > 0.5)).float().mean()),
            }
        )
    speed = {"microseconds_a_pixel": round(1e6 * seconds / side**2, 1)}
    return {"side": side, "radius": crf.radius, "exact_halo": crf.exact_halo, **speed, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", help="two or three sides")
    parser.add_argument("--halo", action="store_true")
    parser.add_argument("--side", type=int, default=512, help="of the image, with --halo: 460 at least")
    parser.add_argument("--scratch", type=Path, help="a folder with room for the labels, twice")
    parser.add_argument("--results", type=Path, default=RESULTS / "postprocessing.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        scipy_in_memory(given.one)
        return
    if given.shape is None and not given.halo:
        parser.error("give --shape or --halo")
    result = load(given.results)
    if given.halo:
        result["dense_crf_halo"] = {**halos(given.side), **account()}
    else:
        with scratch(given.scratch) as folder:
            row = {**row_of(folder, tuple(given.shape)), **account()}
        rows = [r for r in result.get("instances", []) if r["shape"] != row["shape"]]
        result["instances"] = sorted([*rows, row], key=lambda r: math.prod(r["shape"]))
    save(given.results, result)


if __name__ == "__main__":
    main()
