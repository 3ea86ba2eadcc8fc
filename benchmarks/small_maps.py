"""Gradients of convolutions of small maps, on a processor, against 64 bits: PyTorch's own and a training's.

    python benchmarks/small_maps.py [--results FILE]

Every kernel, stride, padding and map size below, in bf16 and in 32 bits, 16 channels, batch 2: output, gradient of the
input and of the weights. A shape counts as wrong from a difference of 3 % (bf16) or 1e-4 (32 bits) of the largest true
value, as a crash where the process dies; the next shapes then go on in a new one. Memory is filled with nan before each
try, so that numbers that were never written show. Results go to benchmarks/results/small_maps.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from medseg.training.precision import RightGradients

RESULTS = Path(__file__).parent / "results" / "small_maps.json"
TRIES = 2
JUNK = (50, 200, 1000, 5000, 20000, 60000, 200000, 1000000)
LIMITS = {"bfloat16": 0.03, "float32": 1e-4}
CONVOLUTIONS = {
    (2, False): torch.conv2d,
    (3, False): torch.conv3d,
    (2, True): torch.conv_transpose2d,
    (3, True): torch.conv_transpose3d,
}


def shapes() -> Iterator[dict[str, Any]]:
    """Cubes, and in 3D slabs that are short along one axis."""
    for dims in (2, 3):
        for kernel in range(2, 10):
            for stride in range(1, 5):
                for padding in sorted({0, 1, (kernel - 1) // 2, kernel // 2}):
                    base = {"transposed": False, "kernel": kernel, "stride": stride, "padding": padding}
                    for size in range(max(1, kernel - 2 * padding), 14):
                        yield {**base, "sizes": [size] * dims}
                        if dims == 3:
                            yield from ({**base, "sizes": [12] * i + [size] + [12] * (2 - i)} for i in range(3))
        for kernel in range(2, 6):
            for stride in (1, 2, 4):
                for padding in sorted({0, kernel // 2}):
                    base = {"transposed": True, "kernel": kernel, "stride": stride, "padding": padding}
                    sizes = (n for n in range(1, 8) if (n - 1) * stride + kernel > 2 * padding)
                    yield from ({**base, "sizes": [size] * dims} for size in sizes)


def wrong(shape: dict[str, Any], precision: str, guarded: bool) -> bool:
    """Whether output or gradients differ from those of 64 bits in any try."""
    torch.manual_seed(0)
    dtype, dims = getattr(torch, precision), len(shape["sizes"])
    convolution = CONVOLUTIONS[dims, shape["transposed"]]
    x = torch.randn(2, 16, *shape["sizes"]).to(dtype)
    weight = torch.randn(16, 16, *[shape["kernel"]] * dims).to(dtype)
    keys = {"stride": shape["stride"], "padding": shape["padding"]}
    inputs, weights = x.double().requires_grad_(), weight.double().requires_grad_()
    true = convolution(inputs, weights, **keys)
    gradient = torch.randn(true.shape).to(dtype)
    true.backward(gradient.double())
    for _ in range(TRIES):
        junk = [torch.full((n,), float("nan")) for n in JUNK]
        del junk
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with RightGradients() if guarded else nullcontext():
            found = convolution(a, b, **keys)
        found.backward(gradient)
        for one, other in ((found, true), (a.grad, inputs.grad), (b.grad, weights.grad)):
            if not (one.double() - other).abs().max() <= LIMITS[precision] * other.abs().max():
                return True
    return False


def count(precision: str, guarded: bool) -> dict[str, int]:
    """How many shapes are wrong, and how many kill their process."""
    todo, found = list(shapes()), {"shapes": 0, "wrong": 0, "crashes": 0}
    while todo:
        line = [sys.executable, __file__, "--one", precision, str(int(guarded))]
        done = subprocess.run(
            line, input=json.dumps(todo), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        verdicts = done.stdout.split()
        found["shapes"] += len(verdicts)
        found["wrong"] += verdicts.count("1")
        if len(verdicts) < len(todo):
            found["shapes"] += 1
            found["crashes"] += 1
        todo = todo[len(verdicts) + 1 :]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        for shape in json.loads(sys.stdin.read()):
            print(int(wrong(shape, options.one[0], options.one[1] == "1")), flush=True)
        return
    table = {}
    for precision in LIMITS:
        for guarded in (False, True):
            table[f"{precision}, {'medseg train' if guarded else 'PyTorch'}"] = found = count(precision, guarded)
            print(f"{precision:8s} {'medseg train' if guarded else 'PyTorch':12s} {found}", flush=True)
    about = {
        "pytorch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }
    options.results.write_text(json.dumps({**about, "counts": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
