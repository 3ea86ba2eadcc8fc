"""Peak memory of ``medseg infer --tile-overlap``, from file to file, beside MONAI's sliding window in memory.

    python benchmarks/peak_memory.py --side 512          (and 1024, 2048: each adds its row)
    python benchmarks/peak_memory.py --monai --side 512  (and 1024)
    python benchmarks/peak_memory.py --huge 4642         (a dry run of 100 Gvoxel, and a box of it)

The scan is a Zarr of uint8 in chunks of 128³, which are links to eight chunks of noise: it takes no time to make and
decodes as any other. The network is a 3D U-Net, depth 1, width 2, valid convolutions; intensities are scaled by a fixed
range, so no pass for statistics is made. Every side gets the same --memory, and the tile and batch that medseg chooses
by itself for the largest scan (2048³) within it; they are kept in the results, so that later sides take them too.

The peak is the largest of the process's resident memory as polled from outside and of its own --json. MONAI's is that
of a process that loads the scan, runs ``sliding_window_inference`` (padded twin, Gaussian, roi 96, overlap 0.5) and
takes the arg-max; it is killed where it holds more than --limit. Results go to benchmarks/results/peak_memory.json.
Small: --side 256 --tile 112 --results /tmp/peak.json; --huge 1000 --box 128 --results /tmp/peak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from workbench import (
    MEDSEG,
    RESULTS,
    Watched,
    account,
    load,
    random_network,
    save,
    scratch,
    smooth_noise,
    watch,
    write_model,
)

from medseg.inference.budget import parse_size
from medseg.scans.preprocessing import Normalization, Preprocessing

SPEC = {"name": "unet", "dims": 3, "depth": 1, "width": 2, "in_channels": 1, "out_channels": 2}
CHUNK = 128
BLOCKS = 8
LARGEST = 2048
MIB = 2**20


def make_scan(path: Path, side: int, filled: range | None = None) -> Path:
    """A cube of noise; ``filled`` are the chunks that exist along each axis, all of them by default."""
    small = zarr.create_array(
        path.parent / "blocks.zarr", shape=(BLOCKS * CHUNK, CHUNK, CHUNK), **_how(), overwrite=True
    )
    for number in range(BLOCKS):
        small[number * CHUNK : (number + 1) * CHUNK] = smooth_noise((CHUNK,) * 3, number)
    zarr.create_array(path, shape=(side,) * 3, **_how())
    chunks = range(-(-side // CHUNK)) if filled is None else filled
    drawn = np.random.default_rng(0).integers(BLOCKS, size=(len(chunks),) * 3)
    for (i, j, k), number in zip(product(chunks, repeat=3), drawn.flat, strict=True):
        target = path / "c" / str(i) / str(j) / str(k)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path.parent / "blocks.zarr" / "c" / str(number) / "0" / "0", target)
    return path


def _how() -> dict[str, Any]:
    codec = zarr.codecs.ZstdCodec(level=1)
    return {"chunks": (CHUNK,) * 3, "dtype": "uint8", "compressors": codec, "fill_value": 100, "zarr_format": 3}


def make_model(folder: Path) -> Path:
    view = Preprocessing(orientation=None, normalize=Normalization(kind="range", range=(0, 255)))
    return write_model(folder, random_network(SPEC), SPEC, view)


def chosen(folder: Path, model: Path, memory: str, threads: int) -> dict[str, int]:
    """The tile and batch that medseg takes for the largest scan, which needs no voxels to be planned."""
    (folder / "largest").mkdir()
    scan = make_scan(folder / "largest" / "scan.zarr", LARGEST, range(0))
    found = watch([*MEDSEG, *_words(scan, model, folder / "none", memory, threads), "--dry-run", "--json"])
    plan = found.json()["scans"][0]["plan"]
    return {"tile": plan["window"][0], "batch": plan["batch"]}


def _words(scan: Path, model: Path, out: Path, memory: str, threads: int) -> list[str]:
    fixed = ["--memory", memory, "--threads", str(threads), "--device", "cpu"]
    return ["infer", "--tile-overlap", "-m", str(model), str(scan), "-o", str(out), *fixed]


def ours(folder: Path, given: argparse.Namespace, tile: dict[str, int]) -> dict[str, Any]:
    scan = make_scan(folder / "scan.zarr", given.side)
    words = _words(scan, make_model(folder / "model"), folder / "out", given.memory, given.threads)
    words += ["--tile", str(tile["tile"]), "--batch", str(tile["batch"]), "--json"]
    done = watch([*MEDSEG, *words])
    row = done.json()["scans"][0]
    return {"side": given.side, "options": _options(given, tile), "tiles": row["tiles"], **_measured(row, done)}


def _options(given: argparse.Namespace, tile: dict[str, int]) -> str:
    return f"--memory {given.memory} --threads {given.threads} --tile {tile['tile']} --batch {tile['batch']}"


def _measured(row: dict[str, Any], done: Watched) -> dict[str, Any]:
    own = row["peak_memory_bytes"]
    peak = max(own, done.peak_bytes)
    return {
        "gigavoxels": round(row["voxels"] / 1e9, 3),
        "peak_mib": round(peak / MIB, 1),
        "peak_mib_from_outside": round(done.peak_bytes / MIB, 1),
        "peak_mib_by_its_json": round(own / MIB, 1),
        "bytes_a_voxel": peak / row["voxels"],
        "expected_mib": round(row["plan"]["host_bytes"] / MIB, 1),
        "cache_mib": round(row["plan"]["cache_bytes"] / MIB, 1),
        "beam": row["plan"]["beam"],
        "fits": row["plan"]["fits"],
        "seconds": round(row["seconds"], 1),
    }


def huge(folder: Path, given: argparse.Namespace, tile: dict[str, int]) -> dict[str, Any]:
    """A dry run, and a box in the middle of a scan of which only the chunks around the box exist."""
    first = given.huge // 2
    near = range((first - 2 * CHUNK) // CHUNK, (first + given.box + 2 * CHUNK) // CHUNK + 1)
    scan = make_scan(folder / "huge.zarr", given.huge, near)
    words = _words(scan, make_model(folder / "model"), folder / "out", given.memory, given.threads)
    words += ["--tile", str(tile["tile"]), "--batch", str(tile["batch"])]
    dry = watch([*MEDSEG, *words, "--dry-run"])
    if dry.code:
        raise RuntimeError(dry.err)
    box = ",".join([f"{first}:{first + given.box}"] * 3)
    part = watch([*MEDSEG, *words, "--box", box, "--json"])
    row = part.json()["scans"][0]
    about = {"options": f"{_options(given, tile)} --box {box}", "tiles": row["tiles"], **_measured(row, part)}
    return {
        "side": given.huge,
        "gigavoxels": round(given.huge**3 / 1e9, 2),
        "dry_run": {
            "says": dry.out.replace(str(folder), "SCRATCH").splitlines(),
            "seconds_of_the_process": round(dry.seconds, 1),
            "peak_mib": round(dry.peak_bytes / MIB, 1),
        },
        "box": about,
    }


def monai(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    scan = make_scan(folder / "scan.zarr", given.side)
    one = ["--one", str(scan), "--threads", str(given.threads)]
    done = watch([sys.executable, __file__, *one], parse_size(given.limit))
    row: dict[str, Any] = {"side": given.side, "gigavoxels": round(given.side**3 / 1e9, 3)}
    if done.killed_at is None and done.code:
        row["died"] = done.err.strip().splitlines()[-1][:200]
    elif done.killed_at is not None:
        row["killed_at_gib"] = round(done.killed_at / 2**30, 2)
    peak = {"peak_mib": round(done.peak_bytes / MIB, 1), "bytes_a_voxel": done.peak_bytes / given.side**3}
    return {**row, **peak, "seconds_of_the_process": round(done.seconds, 1)}


def monai_in_memory(path: str, threads: int) -> None:
    """What is measured as MONAI's path, in a process of its own."""
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(threads)
    network = random_network({**SPEC, "padding": "same"})
    image = torch.from_numpy(zarr.open_array(path, mode="r")[:])[None, None].float().div_(255)
    with torch.inference_mode():
        logits = sliding_window_inference(image, (96, 96, 96), 4, network, overlap=0.5, mode="gaussian")
        labels = logits.argmax(1).to(torch.uint8)
    print(json.dumps({"foreground": int(labels.sum())}))


def merged(result: dict[str, Any], kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """The results with one more row, and the growth from the smallest scan to the largest."""
    rows = [r for r in result.get(kind, []) if r["side"] != row["side"]]
    result[kind] = sorted([*rows, row], key=lambda r: r["side"])
    if kind == "medseg":
        peaks = [r["peak_mib"] for r in result[kind]]
        result["growth_from_smallest_to_largest"] = round(peaks[-1] / peaks[0] - 1, 4)
        result["largest_peak_gib"] = round(max(peaks) / 1024, 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, help="of the cube: 512, 1024, 2048")
    parser.add_argument("--monai", action="store_true", help="MONAI's path instead of ours")
    parser.add_argument("--huge", type=int, metavar="SIDE", help="a dry run and a box of a scan that is hardly there")
    parser.add_argument("--box", type=int, default=256, help="the box's side, with --huge")
    parser.add_argument("--memory", default="1GiB", help="the same for all sides")
    parser.add_argument("--tile", type=int, help="the same for all sides; default: what medseg takes for the largest")
    parser.add_argument("--limit", default="18GiB", help="of MONAI's process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="a folder with room for a mask of the scan's size")
    parser.add_argument("--results", type=Path, default=RESULTS / "peak_memory.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        monai_in_memory(given.one, given.threads)
        return
    if given.side is None and given.huge is None:
        parser.error("give --side or --huge")
    result = load(given.results)
    about = account()
    with scratch(given.scratch) as folder:
        if given.monai:
            merged(result, "monai", {**monai(folder, given), **about})
        else:
            fixed = result.get("tile") if given.tile is None else {"tile": given.tile, "batch": 1}
            if fixed is None:
                fixed = chosen(folder, make_model(folder / "model"), given.memory, given.threads)
            result["tile"] = fixed
            if given.huge:
                result["huge"] = {**huge(folder, given, fixed), **about}
            else:
                merged(result, "medseg", {**ours(folder, given, fixed), **about})
    save(given.results, result)


if __name__ == "__main__":
    main()
