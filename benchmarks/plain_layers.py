"""A network's forward pass against the same layers written plainly: no more than 5 % slower, and no copies.

    OMP_NUM_THREADS=1 python benchmarks/plain_layers.py [--pairs 21] [--only fcn8s unet ...]

Of one pass every tensor operation is recorded below the modules (``TorchDispatchMode``). The twin is the list of these
operations without what is no layer: convolutions, norms, activations, poolings, interpolations, sums and joins run in
their order on the same arguments, views are views, and the result of each copy is there beforehand; so is a dense copy
of what a convolution or pooling gets as a view, which it would copy inside. There are no modules, no checks, and no
shapes to be computed. So the network's own pass, in turns with the twin's, tells what modules, checks and copies cost.

Time is the processor's (``time.process_time``, one thread), of pairs in changing order. What else runs on the machine
only ever adds to it, and not evenly; so a network is slower where both say so, the median of the pairs' ratios and the
ratio of the fastest passes. Copies are told in bytes, beside the bytes of all results. Results go to
benchmarks/results/plain_layers.json; the exit code is 1 where a network is slower, or gives other logits than its twin.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from workbench import RESULTS, account, random_network, save

from medseg.networks.network import Network

LIMIT = 1.05

COPIES = {"clone", "_to_copy", "constant_pad_nd", "repeat"}
"""Operations that move values and compute none."""
DENSE = {"convolution", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"}
"""Layers that lay out anew what they get as a view."""

CASES: tuple[dict[str, Any], ...] = (
    {"name": "unet", "width": 8, "window": 412},
    {"name": "unet", "width": 8, "padding": "same", "norm": "batch", "window": 320},
    {"name": "unet", "width": 8, "up": "interpolated", "window": 444},
    {"name": "unet3d", "width": 8, "window": 92},
    {"name": "fcn32s", "width": 6, "window": 378},
    {"name": "fcn16s", "width": 6, "window": 378},
    {"name": "fcn8s", "width": 6, "window": 378},
    {"name": "fcn8s", "width": 8, "padding": "same", "window": 416},
    {"name": "fcn_resnet", "width": 8, "backbone": "resnet50", "window": 416},
    {"name": "deconvnet", "width": 4, "window": 352},
    {"name": "segnet", "width": 8, "window": 352},
    {"name": "segnet", "width": 8, "unpool": "bilinear", "window": 320},
    {"name": "segnet_basic", "width": 8, "window": 416},
    {"name": "segnet_small", "width": 8, "window": 401},
    {"name": "deeplab_v1", "width": 8, "window": 401},
    {"name": "deeplab_v1", "width": 8, "align_corners": False, "window": 400},
    {"name": "deeplab_v2", "width": 8, "backbone": "resnet50", "window": 401},
    {"name": "deeplab_v2", "width": 8, "backbone": "vgg16", "scales": (1, 0.75, 0.5), "window": 321},
    {"name": "deeplab_v3", "width": 8, "backbone": "resnet50", "window": 576},
    {"name": "deeplab_v3plus", "width": 8, "backbone": "resnet50", "window": 512},
    {"name": "deeplab_v3plus", "width": 8, "backbone": "xception65", "window": 416},
    {"name": "deeplab_v3plus", "width": 16, "backbone": "mobilenet_v2", "window": 576},
    {"name": "pspnet", "width": 8, "backbone": "resnet50", "window": 384},
    {"name": "upernet", "width": 8, "backbone": "resnet50", "window": 352},
    {"name": "upernet", "width": 16, "backbone": "swin_tiny", "window": 224},
    {"name": "hrnet_ocr", "width": 8, "stem": 16, "features": 64, "window": 321},
    {"name": "basic_unet", "width": 8, "window": 336},
    {"name": "dynunet", "width": 8, "window": 320},
    {"name": "attention_unet", "width": 8, "window": 320},
    {"name": "segresnet", "width": 8, "window": 312},
    {"name": "vnet", "width": 8, "window": 176},
    {"name": "unetr", "width": 2, "image_size": 256, "window": 256},
    {"name": "swin_unetr", "width": 1, "window": 192},
    {"name": "fcn8s", "dims": 3, "width": 2, "padding": "same", "fc_size": 3, "window": 64},
    {"name": "segnet", "dims": 3, "width": 2, "window": 64},
    {"name": "deeplab_v3", "dims": 3, "width": 4, "backbone": "resnet18", "multi_grid": None, "window": 80},
    {"name": "dynunet", "dims": 3, "width": 4, "window": 64},
)
"""Every network once, and the options that change its layers; narrow, the windows large."""


@dataclass(frozen=True)
class Result:
    """What stands for a result of an earlier step among a step's arguments."""

    step: int
    index: int


@dataclass
class Step:
    """One operation of a pass.

    Attributes:
        call: the operation.
        args: its arguments; results of earlier steps are :class:`Result`, everything else is itself.
        kwargs: the same.
        ready: what it gave, where that is not to be computed again.
        ends: the steps whose results nobody uses after it.
    """

    call: Any
    args: list[Any]
    kwargs: dict[str, Any]
    ready: tuple[Any, ...] | None = None
    ends: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Without its overload: ``convolution``."""
        return str(self.call.overloadpacket.__name__)

    def uses(self) -> Iterator[int]:
        """The earlier steps that it needs."""
        for value in (*self.args, *self.kwargs.values()):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Result):
                    yield one.step


class Recorder(TorchDispatchMode):
    """Writes down all operations of a pass, and what was copied in it.

    Attributes:
        steps: the operations.
        copied: bytes by operation.
        made: bytes of all results that are no views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.copied: dict[str, int] = {}
        self.made = 0
        self.results: dict[int, Result] = {}
        self.kept: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation and notes it."""
        step = Step(func, [self._named(v) for v in args], {k: self._named(v) for k, v in (kwargs or {}).items()})
        if step.name in DENSE and not dense(args[0]):
            self._count(f"{step.name} of a view", args[0])
            step.args[0] = args[0].contiguous()
        out = func(*args, **(kwargs or {}))
        results = out if isinstance(out, tuple | list) else (out,)
        if step.name in COPIES:
            self._count(step.name, results[0])
            step.ready = tuple(result.detach().clone(memory_format=torch.preserve_format) for result in results)
        elif step.name == "copy_":
            self._count(step.name, results[0])
        for index, result in enumerate(results):
            if isinstance(result, Tensor):
                self.made += 0 if result._is_view() or id(result) in self.results else result.nbytes
                self.results[id(result)] = Result(len(self.steps), index)
                self.kept.append(result)
        self.steps.append(step)
        return out

    def _named(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [self._named(one) for one in value]
        return self.results.get(id(value), value) if isinstance(value, Tensor) else value

    def _count(self, name: str, tensor: Tensor) -> None:
        self.copied[name] = self.copied.get(name, 0) + tensor.nbytes


def dense(x: Tensor) -> bool:
    """Whether a layer takes it as it lies."""
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous() or (x.ndim in (4, 5) and x.is_contiguous(memory_format=last))


def recorded(network: Network, x: Tensor) -> Recorder:
    """A pass, written down."""
    with torch.no_grad(), Recorder() as recorder:
        network(x)
    seen: set[int] = {len(recorder.steps) - 1}
    for number in reversed(range(len(recorder.steps))):
        step = recorder.steps[number]
        step.ends = sorted(set(step.uses()) - seen) + ([] if number in seen else [number])
        seen.update(step.uses(), [number])
    return recorder


def plainly(steps: Sequence[Step]) -> Tensor:
    """All layers in their order, on the window that was recorded: (N, K, \\*out)."""
    results: list[Any] = []
    for step in steps:
        if step.ready is None:
            args = [_filled(value, results) for value in step.args]
            out = step.call(*args, **{key: _filled(value, results) for key, value in step.kwargs.items()})
            results.append(out if isinstance(out, tuple | list) else (out,))
        else:
            results.append(step.ready)
        for end in step.ends:
            results[end] = None
    logits: Tensor = results[-1][0]
    return logits


def _filled(value: Any, results: list[Any]) -> Any:
    if type(value) is Result:
        return results[value.step][value.index]
    return [_filled(one, results) for one in value] if type(value) is list else value


def seconds(call: Callable[[], Any]) -> float:
    """The processor's time for it."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


@torch.inference_mode()
def compared(case: dict[str, Any], pairs: int) -> dict[str, Any]:
    """A network against its twin."""
    spec = {key: value for key, value in case.items() if key != "window"}
    network = random_network(spec)
    with torch.inference_mode(False):
        x = torch.randn(1, network.in_channels, *[case["window"]] * network.dims)
        recorder = recorded(network, x)
    steps = recorder.steps

    def own() -> Tensor:
        out: Tensor = network(x)
        return out

    def twin() -> Tensor:
        return plainly(steps)

    same = all(torch.equal(own(), twin()) for _ in range(2))
    times = []
    for pair in range(pairs):
        if pair % 2:
            plain = seconds(twin)
            times.append((seconds(own), plain))
        else:
            times.append((seconds(own), seconds(twin)))
    ratios = sorted(a / b for a, b in times)
    fastest, plainest = (min(column) for column in zip(*times, strict=True))
    return {
        "network": case,
        "milliseconds": round(1000 * fastest, 1),
        "plain_milliseconds": round(1000 * plainest, 1),
        "ratio_of_fastest": round(fastest / plainest, 4),
        "median_ratio": round(statistics.median(ratios), 4),
        "quartile_ratios": [round(ratios[pairs // 4], 4), round(ratios[-1 - pairs // 4], 4)],
        "same_logits": same,
        "operations": len(steps),
        "result_bytes": recorder.made,
        "copied_bytes": recorder.copied,
    }


def slower(row: dict[str, Any]) -> bool:
    """Whether both ratios are above the limit."""
    return bool(min(row["ratio_of_fastest"], row["median_ratio"]) > LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--only", nargs="+", help="networks by name")
    parser.add_argument("--results", type=Path, default=RESULTS / "plain_layers.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if not given.only or case["name"] in given.only:
            rows.append(compared(case, given.pairs))
            shown = {key: value for key, value in rows[-1].items() if key != "network"}
            print(case, shown, file=sys.stderr, flush=True)
    failed = [row["network"] for row in rows if slower(row) or not row["same_logits"]]
    save(given.results, {**account(), "limit": LIMIT, "pairs": given.pairs, "failed": failed, "networks": rows})
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
