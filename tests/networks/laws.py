"""What every network must hold: the tests of each paper's file call these with narrow networks.

counted(spec)                              parameters at full width, on the meta device
built(spec)                                a network to measure: in double, without dropout, nothing left at zero
assert_footprint(network)                  probing by finite changes finds the composed first, last and halo
assert_tiled_is_whole(network, ext, core)  tile by tile == one pass over the mirrored scan
assert_cut_is_whole(network)               two windows along one axis == one over both, for halos too wide to tile with
assert_blended_is_monais(network, roi)     sliding windows == MONAI's
assert_sizes(network, *windows)            logits of the window's own size
assert_trains(network, window)             a step gives every parameter a finite gradient that is not zero
assert_overfits(network, window)           a few steps on one image halve its loss
assert_trains_in_bfloat16(network, window) under autocast losses and weights stay finite, and weights move
assert_round_trip(spec, window, path)      weights written and read give the same logits
assert_casts(network, window)              channels last and bfloat16 give the same labels
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from medseg import Tiling, build_network, create_mask, open_scan, read_mirrored
from medseg.geometry.footprint import least_congruent
from medseg.inference.blend import blend
from medseg.inference.emit import Output
from medseg.inference.segment import prepare
from medseg.inference.windows import Blending
from medseg.networks.network import Network
from medseg.training.precision import RightGradients

CHANGE = 1e60
"""What probing adds to a voxel: large, since each layer passes on a part, and the part that goes farthest counts."""
TOGETHER = 4
"""Pairs of probes in one forward pass."""


def counted(spec: Mapping[str, Any]) -> int:
    """The parameters of a network, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(spec).parameters())


def built(spec: Mapping[str, Any], seed: int = 0) -> Network:
    """The network of a spec in double precision and evaluation mode, ready to be measured.

    Dropout is off; parameters that begin as zeros and batch norm's statistics are drawn, or laws about them could not
    fail.
    """
    torch.manual_seed(seed)
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network.double().eval()


def passing(network: Network, gain: float = 1.0) -> Network:
    """A copy whose weights are all positive, so that no ReLU stops a change and every pooling passes on an increase.

    Args:
        network: stays as it is.
        gain: of each layer; under 1 where sums of branches would grow out of an activation's range (ReLU6).
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
            parameter.data *= gain / parameter[0].numel()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    return network


def probe(network: Network, axis: int = 0, across: int | None = None, gain: float = 1.0) -> tuple[int, int]:
    """The first and the last input voxel, along one axis, that an output voxel j depends on, relative to j.

    One plane after another is changed at every phase of the step, and what differs in the logits is looked at. The
    change is finite: a NaN would mark where a pooling's maximum went and not where it came from. It is made on a ramp
    that falls and on one that rises, so that unpooling puts all maxima to one end, and then to the other.

    Args:
        network: in double precision; weights don't matter, see :func:`passing`.
        axis: which.
        across: the window along the other axes (default: the least that divides evenly).
        gain: see :func:`passing`.
    """
    network = passing(network, gain)
    field = network.fields[axis]
    step = field.step
    window = [across or least_congruent(max(f.trim, 0) + 1, f.step, f.offset) for f in network.fields]
    n = window[axis] = least_congruent(field.last - field.first + step + max(field.trim, 0) + 2, step, field.offset)
    noise = 1e-4 / n * torch.rand(2, network.in_channels, *window, dtype=torch.float64)
    rising = torch.linspace(0.5, 1.0, n, dtype=torch.float64)
    x = noise.movedim(axis + 2, -1).add_(torch.stack([rising.flip(0), rising]).view(2, *[1] * network.dims, n))
    x = x.movedim(-1, axis + 2)
    with torch.inference_mode():
        unchanged = network(x)
    first, last = 0, 0
    for start in range(0, step, TOGETHER):
        planes = torch.arange(start, min(start + TOGETHER, step)) + field.last + 1
        changed = x.repeat(len(planes), *[1] * (x.ndim - 1)).unflatten(0, (len(planes), 2))
        for pair, plane in zip(changed, planes, strict=True):
            pair.select(axis + 2, int(plane)).add_(CHANGE)
        with torch.inference_mode():
            logits = network(changed.flatten(0, 1)).unflatten(0, (len(planes), 2))
        differs = (logits != unchanged).movedim(axis + 3, 1).flatten(2).any(2)
        for row, plane in zip(differs, planes.tolist(), strict=True):
            hit = row.nonzero().flatten().tolist()
            assert hit[0] > 0 and hit[-1] < len(row) - 1, "the window cut the change off"
            last = max(last, plane - hit[0])
            first = min(first, plane - hit[-1])
    return first, last


def assert_footprint(network: Network, axis: int = 0, across: int | None = None, gain: float = 1.0) -> None:
    """What is probed along an axis is what was composed from the layers."""
    field = network.fields[axis]
    assert probe(network, axis, across, gain) == (field.first, field.last)
    around = max(field.before - field.first, field.last - field.before)
    assert network.footprint.halo[axis] == (around if field.padded else field.trim - field.before)


def tiled_and_whole(
    network: Network, extent: Sequence[int], core: Sequence[int], batch: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The logits of a random scan (K, *extent), tile by tile and in one pass, in the network's own precision."""
    dtype = next(network.parameters()).numpy(force=True).dtype
    rng = np.random.default_rng(len(extent) * 1000 + sum(extent))
    scan = open_scan(rng.standard_normal((network.in_channels, *extent)).astype(dtype))

    def run(tiling: Tiling) -> np.ndarray:
        out = np.full((network.out_channels, *extent), np.nan, dtype)
        for i in range(0, len(tiling), batch):
            tiles = tiling[i : i + batch]
            x = torch.from_numpy(np.stack([read_mirrored(scan, t.read) for t in tiles]))
            with torch.inference_mode():
                for tile, logits in zip(tiles, network.core(x), strict=True):
                    kept = logits[(slice(None), *tile.keep.slices)]
                    out[(slice(None), *tile.write.slices)] = kept.numpy()
        return out

    footprint = network.footprint
    return run(Tiling(extent, core, footprint)), run(Tiling.whole(extent, footprint))


def assert_tiled_is_whole(
    network: Network, extent: Sequence[int], core: Sequence[int], batch: int = 1, tolerance: float = 1e-10
) -> None:
    """Tiling is exact, to a part of the logits' scale, and there is more than one tile."""
    assert network.footprint.exact
    assert len(Tiling(extent, core, network.footprint)) > 1
    tiled, whole = tiled_and_whole(network, extent, core, batch)
    assert np.ptp(whole) > 0
    assert np.abs(tiled - whole).max() <= tolerance * np.abs(whole).max()


def assert_cut_is_whole(network: Network, tolerance: float = 1e-10) -> None:
    """Along the first axis, a window's core is what a longer window has there; the other axes are not cut."""
    footprint, field = network.footprint, network.fields[0]
    assert footprint.exact
    step, halo = footprint.step[0], footprint.halo[0]
    least = [least_congruent(max(f.trim, 0) + 1, f.step, f.offset) for f in network.fields]
    n = footprint.input_shape((step,) * network.dims)[0]
    x = noise(network, (n + step, *least[1:]))
    with torch.inference_mode():
        whole, cut = network(x), network(x.narrow(2, step, n))
    core = cut.narrow(2, halo - field.before, n - 2 * halo)
    there = whole.narrow(2, step + halo - field.before, n - 2 * halo)
    assert np.ptp(there.numpy()) > 0
    assert (core - there).abs().max() <= tolerance * whole.abs().max()


def assert_blended_is_monais(network: Network, roi: Sequence[int], tolerance: float = 1e-4) -> None:
    """Sliding windows over a scan that is longer than they are give the probabilities that MONAI's give."""
    network = prepare(copy.deepcopy(network).float(), torch.device("cpu"))
    blending = Blending(tuple(roi))
    x = noise(network, (roi[0] + roi[0] // 3, *roi[1:]))
    scan = open_scan(x[0].numpy())
    labels, shares = create_mask(None, scan), create_mask(None, scan, dtype=np.float32, channels=network.out_channels)
    blend(scan, network, blending, Output(labels, probabilities=shares))
    about = {"mode": "gaussian", "sigma_scale": blending.sigma_scale, "padding_mode": "constant"}
    with torch.inference_mode():
        wanted = sliding_window_inference(x, roi, 1, network, blending.overlap, **about)[0].softmax(0).numpy()
    assert np.ptp(wanted) > 0
    assert np.abs(shares.array - wanted).max() <= tolerance


def noise(network: Network, window: Sequence[int], batch: int = 1, seed: int = 0) -> Tensor:
    """(N, C, *window) random voxels in the network's own precision."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    return torch.randn(batch, network.in_channels, *window, dtype=dtype, generator=generator)


def assert_sizes(network: Network, *windows: Sequence[int]) -> None:
    """The logits of a window have its size."""
    for window in windows:
        with torch.inference_mode():
            assert network(noise(network, window)).shape == (1, network.out_channels, *window)


def assert_trains(network: Network, window: Sequence[int], batch: int = 2) -> None:
    """One backward pass in training mode gives every parameter a finite gradient that is not zero.

    Convolutions' biases may have none: a norm that follows takes them off again.
    """
    network = copy.deepcopy(network).float().train()
    outputs = network.outputs(noise(network, window, batch))
    assert len(outputs) == 1 + len(network.auxiliary_weights)
    sum((logits * torch.randn_like(logits)).mean() for logits in outputs).backward()
    free = {f"{name}.bias" for name, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd)}
    bad = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not (p.grad.any() or name in free)
    ]
    assert not bad, f"no gradient, or none that is finite: {bad}"


def _weighted(network: Network, x: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy of the logits and of the auxiliary heads' as the network weighs them."""
    weights = (1.0, *network.auxiliary_weights)
    outputs = [functional.interpolate(y, target.shape[1:]) for y in network.outputs(x)]
    return sum(w * functional.cross_entropy(y, target) for w, y in zip(weights, outputs, strict=True))


def _halves(network: Network, x: Tensor) -> Tensor:
    """(N, *out): the first half of class 0, the second one of class 1."""
    with torch.no_grad():
        spatial = network(x).shape[2:]
    target = torch.zeros(len(x), *spatial, dtype=torch.long)
    target[:, spatial[0] // 2 :] = 1
    return target


def assert_overfits(network: Network, window: Sequence[int], steps: int = 60, rate: float = 0.01) -> None:
    """Training on one image of two halves, of which one is brighter, halves the loss in a few steps."""
    network = copy.deepcopy(network).float().train()
    x = noise(network, window, 2)
    x[:, :, window[0] // 2 :] += 2
    target = _halves(network, x)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    losses = []
    while len(losses) < steps and (not losses or losses[-1] > losses[0] / 2):
        loss = _weighted(network, x, target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.isfinite(losses).all()
    assert losses[-1] <= losses[0] / 2, losses


def assert_trains_in_bfloat16(network: Network, window: Sequence[int]) -> None:
    """One step as a training does it: the logits are bfloat16, loss and weights finite, and the weights have moved."""
    network = copy.deepcopy(network).float().train()
    x = noise(network, window, 2)
    target = _halves(network, x)
    before = copy.deepcopy(list(network.parameters()))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    with torch.autocast("cpu", torch.bfloat16), RightGradients():
        assert network(x).dtype == torch.bfloat16
        loss = _weighted(network, x, target)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(p.isfinite().all() for p in network.parameters())
    assert any((p != b).any() for p, b in zip(network.parameters(), before, strict=True))


def assert_round_trip(spec: Mapping[str, Any], window: Sequence[int], folder: Path) -> None:
    """A network's weights, written and read into another one, give the same logits."""
    network, other = built(spec, seed=0).float(), built(spec, seed=1).float()
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    other.load_state_dict(load_file(path))
    x = noise(network, window)
    with torch.inference_mode():
        assert torch.equal(network(x), other(x))


def assert_casts(network: Network, window: Sequence[int], agree: float = 0.95) -> None:
    """Channels last gives the same logits; bfloat16 gives nearly every voxel the same label."""
    network = copy.deepcopy(network).float()
    x = noise(network, window)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    with torch.inference_mode():
        logits = network(x)
        last = copy.deepcopy(network).to(memory_format=formats[x.ndim])(x.to(memory_format=formats[x.ndim]))
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
    assert (last - logits).abs().max() <= 1e-3 * logits.abs().max()
    assert (half.argmax(1) == logits.argmax(1)).double().mean() >= agree
