"""What every network must hold: the tests of each paper's file call these with narrow networks.

counted(spec)                              parameters at full width, on the meta device
built(spec)                                a network to measure: in double, without dropout, nothing left at zero
assert_footprint(network)                  probing by finite changes finds the composed first, last and halo
assert_tiled_is_whole(network, ext, core)  tile by tile == one pass over the mirrored scan
assert_sizes(network, *windows)            logits of the window's own size
assert_trains(network, window)             a step gives every parameter a finite gradient that is not zero
assert_overfits(network, window)           a few steps on one image lower its loss
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
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from medseg import Tiling, build_network, open_scan, read_mirrored
from medseg.geometry.footprint import least_congruent
from medseg.networks.network import Network

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


def noise(network: Network, window: Sequence[int], batch: int = 1, seed: int = 0) -> torch.Tensor:
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
    network = copy.deepcopy(network).train()
    logits = network(noise(network, window, batch))
    (logits * torch.randn_like(logits)).mean().backward()
    free = {f"{name}.bias" for name, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd)}
    bad = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not (p.grad.any() or name in free)
    ]
    assert not bad, f"no gradient, or none that is finite: {bad}"


def assert_overfits(network: Network, window: Sequence[int], steps: int = 12, rate: float = 0.01) -> None:
    """Training on one image lowers its loss by a tenth or more."""
    network = copy.deepcopy(network).float().train()
    x = noise(network, window, 2)
    with torch.no_grad():
        spatial = network(x).shape[2:]
    target = torch.zeros(2, *spatial, dtype=torch.long)
    target[(..., slice(spatial[-1] // 2))] = 1
    optimizer = torch.optim.Adam(network.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(network(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.isfinite(losses).all()
    assert min(losses[1:]) < 0.9 * losses[0], losses


def assert_round_trip(spec: Mapping[str, Any], window: Sequence[int], folder: Path) -> None:
    """A network's weights, written and read into another one, give the same logits."""
    network, other = built(spec, seed=0), built(spec, seed=1)
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
