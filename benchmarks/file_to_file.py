"""How much of the time from a scan's file to a mask's file the network alone takes, and how fast it computes.

    python benchmarks/file_to_file.py [--cases 2d 3d] [--threads 2]

For each case ``medseg infer --tile-overlap`` takes a scan from its file to a mask by the plan that it chooses itself:

    2d  6144² uint8, tiled and deflated TIFF; U-Net of depth 4 and width 16
    3d  384³ uint8, Zarr in chunks of 64³; Çiçek's network at width 8

    network_share    seconds of the forward passes / seconds from opening to the mask's final name, planning included
    matmul_share     floating-point operations a second of the forward passes / those of torch.mm, 4096², float32,
                     same threads, measured before and after
    wasted_work      operations of all windows / operations of one pass over the whole scan with its border

Operations are medseg's own count, which is checked against torch's FlopCounterMode. Beside it, windows of several cores
are timed one by one, in the channels-last layout, which medseg uses, and in torch's default one. MONAI's loops are
compared in overlap_tile.py. Results go to benchmarks/results/file_to_file.json.
Small: --side 512 --cores 64 --matmul 512 --results /tmp/file.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile
import torch
import zarr
from torch.utils.flop_counter import FlopCounterMode
from workbench import MEDSEG, RESULTS, account, random_network, save, scratch, smooth_noise, watch, write_model

from medseg import Tiling
from medseg.inference.cost import count_forward
from medseg.inference.segment import CHANNELS_LAST, prepare
from medseg.networks.network import Network
from medseg.scans.preprocessing import Normalization, Preprocessing

SPECS: dict[str, dict[str, Any]] = {
    "2d": {"name": "unet", "dims": 2, "depth": 4, "width": 16, "in_channels": 1, "out_channels": 2},
    "3d": {"name": "unet3d", "dims": 3, "depth": 3, "width": 8, "in_channels": 1, "out_channels": 2},
}
SIDES = {"2d": 6144, "3d": 384}
CORES = {"2d": [192, 256, 384, 512, 768, 1536], "3d": [48, 80, 112, 136, 192]}
BLOCK = {"2d": 1024, "3d": 128}
CPU = torch.device("cpu")


def make_scan(folder: Path, case: str, side: int) -> Path:
    """Noise, repeated where the scan is larger than a block of it."""
    block = min(side, BLOCK[case])
    dims = SPECS[case]["dims"]
    noise = torch.from_numpy(smooth_noise((block,) * dims, 0)).repeat((-(-side // block),) * dims)
    voxels = noise[(slice(side),) * dims].numpy()
    if case == "2d":
        path = folder / "scan.tif"
        tifffile.imwrite(path, voxels, tile=(256, 256), compression="zlib", photometric="minisblack")
        return path
    path = folder / "scan.zarr"
    zarr.create_array(path, shape=voxels.shape, chunks=(64,) * 3, dtype="uint8")[:] = voxels
    return path


def fastest(run: Callable[[], Any], repetitions: int = 3) -> float:
    """Seconds of the fastest of a few runs, after one that is not counted."""
    run()
    times = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def matmul_rate(side: int) -> float:
    """Floating-point operations a second of a product of two matrices, float32."""
    a, b = torch.rand(side, side), torch.rand(side, side)
    out = torch.empty(side, side)
    return 2 * side**3 / fastest(lambda: torch.mm(a, b, out=out))


def check_count(network: Network) -> None:
    """Compares medseg's count of operations with torch's.

    Raises:
        RuntimeError: where they differ.
    """
    window = network.footprint.input_shape((2 * network.footprint.step[0],) * network.dims)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(torch.rand(1, network.in_channels, *window))
    counted = count_forward(network, window).flops
    if counted != counter.get_total_flops():
        raise RuntimeError(f"a window {window} is counted at {counted}, by torch at {counter.get_total_flops()}")


def layouts(case: str, core: int, matmul: float) -> dict[str, Any]:
    """A window of this core in both layouts, as shares of the matrix product's rate."""
    row: dict[str, Any] = {"core": core}
    for layout in ("channels-last", "default"):
        network = random_network(SPECS[case])
        window = network.footprint.input_shape((core,) * network.dims)
        x = torch.rand(1, network.in_channels, *window)
        if layout == "channels-last":
            network, x = prepare(network, CPU), x.contiguous(memory_format=CHANNELS_LAST[network.dims])
        with torch.inference_mode():
            seconds = fastest(lambda n=network, x=x: n.core(x))  # type: ignore[misc]
        row[layout] = round(count_forward(network, window).flops / seconds / matmul, 3)
    return row


def run_case(folder: Path, case: str, given: argparse.Namespace) -> dict[str, Any]:
    network = random_network(SPECS[case])
    check_count(network)
    side = given.side or SIDES[case]
    scan = make_scan(folder, case, side)
    view = Preprocessing(orientation=None, normalize=Normalization(kind="range", range=(0, 255)))
    model = write_model(folder / "model", network, SPECS[case], view)
    before = matmul_rate(given.matmul)
    words = ["infer", "--tile-overlap", "-m", str(model), str(scan), "-o", str(folder / "out"), "--json"]
    done = watch([*MEDSEG, *words, "--device", "cpu", "--threads", str(given.threads)])
    row = done.json()["scans"][0]
    after = matmul_rate(given.matmul)
    matmul = max(before, after)
    window, seconds = row["window"], row["stages"]["network"]["seconds"]
    flops = row["tiles"] * count_forward(network, window).flops
    whole = count_forward(network, Tiling.whole((side,) * network.dims, network.footprint).window).flops
    return {
        "scan": f"{side}^{network.dims} {scan.suffix[1:]}",
        "network": SPECS[case],
        "window": window,
        "core": row["plan"]["core"],
        "tiles": row["tiles"],
        "batch": row["plan"]["batch"],
        "seconds": round(row["seconds"], 2),
        "seconds_of_the_process": round(done.seconds, 2),
        "stages_seconds": {name: round(stage["seconds"], 2) for name, stage in row["stages"].items()},
        "megavoxels_per_second": row["voxels"] / row["seconds"] / 1e6,
        "network_share": round(seconds / row["seconds"], 4),
        "network_share_of_the_process": round(seconds / done.seconds, 4),
        "network_gigaflops": round(flops / seconds / 1e9, 2),
        "matmul_gigaflops": [round(rate / 1e9, 2) for rate in (before, after)],
        "matmul_share": round(flops / seconds / matmul, 4),
        "wasted_work": round(flops / whole, 3),
        "matmul_share_by_core": [layouts(case, core, matmul) for core in given.cores or CORES[case]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--side", type=int, help="of the scans; default: 6144 and 384")
    parser.add_argument("--cores", type=int, nargs="+", help="to time one by one")
    parser.add_argument("--matmul", type=int, default=4096, help="the matrices' side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS / "file_to_file.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = account()
    for case in given.cases:
        with scratch() as folder:
            result[case] = run_case(folder, case, given)
    save(given.results, result)


if __name__ == "__main__":
    main()
