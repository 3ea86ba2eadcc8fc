"""Samples per second of a training from prepared arrays against one from arrays in memory.

    python benchmarks/prepared_training.py CONFIG [key=value ...] [--rounds 5] [--samples 64] [--steps 12]

The same cases, seeds and samples; ways take turns, and of the rounds the fastest counts, since whatever else the
machine does only adds to it. «sampling» is the samples alone, in one process, augmentation included; «step» is what a
training does: a worker reads samples while the network learns from those before. «views» reads through the views each
time, which is what prepared arrays stand in for. A digest shows that all ways gave the same samples. Results go to
benchmarks/results/prepared_training.json, under the config's name.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from workbench import account, load, save

from medseg import Experiment, build_network
from medseg.networks.network import Network
from medseg.open_data import OpenData
from medseg.preparing.training_cases import training_cases
from medseg.study import window_of
from medseg.training.augment import build_augmentation
from medseg.training.losses import build_loss
from medseg.training.samples import ConsecutiveSamples, SampleGeometry, TileSamples
from medseg.training.segmentation_loss import SegmentationLoss

RESULTS = Path(__file__).parent / "results" / "prepared_training.json"
WARM = 2
IN_MEMORY = 1 << 40


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("keys", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    experiment = Experiment.load(arguments.config, arguments.keys)
    data = OpenData.open(experiment)
    requests = data.requests()
    held = {
        "memory": training_cases(requests, IN_MEMORY, "never"),
        "prepared": training_cases(requests, 0, "always"),
        "views": training_cases(requests, 0, "never"),
    }
    network, loss = _network(experiment, data)
    geometry = SampleGeometry.of(network, window_of(experiment, network))
    augmentation = build_augmentation(experiment.augmentation, len(geometry.window))
    settings = experiment.training
    made = {
        way: TileSamples(
            cases, data.labels, geometry, augmentation, experiment.seed, settings.foreground_oversampling, loss
        )
        for way, cases in held.items()
    }
    for samples in made.values():
        samples.census  # noqa: B018 - counted before the clock runs
    sampling = _fastest(made, arguments.rounds, lambda s: _sampling(s, arguments.samples))
    step = _fastest(made, arguments.rounds, lambda s: _steps(s, experiment, network, loss, arguments.steps))
    digests = {way: _digest(samples) for way, samples in made.items()}
    result = {
        **account(),
        "cases": len(requests),
        "gigabytes_in_memory": round(sum(request.nbytes for request in requests) / 1e9, 3),
        "window": list(geometry.window),
        "batch": settings.batch,
        "workers": settings.workers,
        "threads": torch.get_num_threads(),
        "samples_per_second": {"sampling": _rounded(sampling), "step": _rounded(step)},
        "prepared_to_memory": {
            "sampling": round(sampling["prepared"] / sampling["memory"], 3),
            "step": round(step["prepared"] / step["memory"], 3),
        },
        "same_samples": len(set(digests.values())) == 1,
    }
    save(RESULTS, {**load(RESULTS), experiment.name: result})


def _network(experiment: Experiment, data: OpenData) -> tuple[Network, SegmentationLoss]:
    loss = build_loss(experiment.loss.model_dump())
    loss.learn_regions(data.labels)
    channels = {"in_channels": data.channels, "out_channels": loss.channels(len(data.labels.targets))}
    torch.manual_seed(experiment.seed)
    return build_network({**experiment.network.arguments, **channels}), loss


def _fastest(made: dict[str, TileSamples], rounds: int, measure: Callable[[TileSamples], float]) -> dict[str, float]:
    best = dict.fromkeys(made, 0.0)
    for _ in range(rounds):
        for way, samples in made.items():
            best[way] = max(best[way], measure(samples))
    return best


def _sampling(samples: TileSamples, count: int) -> float:
    """Samples per second in this process."""
    samples[0]
    begun = time.perf_counter()
    for number in range(count):
        samples[number]
    return count / (time.perf_counter() - begun)


def _steps(samples: TileSamples, experiment: Experiment, network: Network, loss: SegmentationLoss, steps: int) -> float:
    """Samples per second of forward, backward and optimizer steps, with the loader of a training."""
    settings = experiment.training
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loader = DataLoader(
        samples,
        batch_size=settings.batch,
        sampler=ConsecutiveSamples(settings.batch),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
    )
    network.train()
    begun = 0.0
    for step, batch in enumerate(loader):
        if step == WARM:
            begun = time.perf_counter()
        if step == WARM + steps:
            break
        optimizer.zero_grad()
        maps = batch["maps"] if batch["maps"].numel() else None
        loss(network(batch["image"]), batch["label"], maps).backward()
        optimizer.step()
    return settings.batch * steps / (time.perf_counter() - begun)


def _digest(samples: TileSamples) -> str:
    digest = hashlib.sha256()
    for number in range(16):
        for value in (samples[number]["image"], samples[number]["label"]):
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _rounded(values: dict[str, float]) -> dict[str, Any]:
    return {way: round(value, 2) for way, value in values.items()}


if __name__ == "__main__":
    main()
