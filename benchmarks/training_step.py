"""A training run's samples per second against a bare PyTorch loop on ready tensors.

    python benchmarks/training_step.py [--steps 60] [--threads 2]

The same network, window, batch, loss, AdamW and precision. «step» is Lightning's Trainer over the task, data ready;
«all» is the whole run as ``medseg train configs/isbi_em.yaml`` does it: reading, augmentation, logging, validation,
checkpoints, MLflow. Results go to benchmarks/results/training_step.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

import medseg.study
from medseg import Experiment, build_network
from medseg.training.budget import Budget
from medseg.training.losses import build_loss
from medseg.training.task import SegmentationTask

CONFIG = Path(__file__).parents[1] / "configs" / "isbi_em.yaml"
RESULTS = Path(__file__).parent / "results" / "training_step.json"
LOSS = {"name": "dice_bce"}
WARM = 5
STEPS_PER_VALIDATION = 150
"""As often as the ten-minute run of benchmarks/isbi_em.py validates on two cores."""


def ready(experiment: Experiment) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A network and one batch."""
    torch.manual_seed(0)
    network = build_network({**experiment.network.arguments, "in_channels": 1, "out_channels": 1})
    window = medseg.study.window_of(experiment, network)
    core = tuple(n - f.trim for n, f in zip(window, network.fields, strict=True))
    batch = experiment.training.batch
    label = (torch.rand(batch, *core) > 0.5).long()
    return network, {"image": torch.randn(batch, 1, *window), "label": label, "maps": torch.empty(batch, 0)}


def bare(experiment: Experiment, steps: int) -> float:
    """Samples per second of a loop of ten lines."""
    network, batch = ready(experiment)
    loss = build_loss(LOSS)
    keys = experiment.training
    optimiser = torch.optim.AdamW(network.parameters(), lr=keys.learning_rate, weight_decay=keys.weight_decay)
    network.train()
    begun = 0.0
    for step in range(WARM + steps):
        if step == WARM:
            begun = time.perf_counter()
        optimiser.zero_grad()
        loss(network(batch["image"]), batch["label"]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), keys.gradient_clip or float("inf"))
        optimiser.step()
    return keys.batch * steps / (time.perf_counter() - begun)


class Ready(torch.utils.data.Dataset[Any]):
    """The same sample for ever."""

    def __init__(self, batch: dict[str, torch.Tensor], length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.batch.items()}


class Clock(Callback):
    """Seconds from the end of the warm-up on."""

    def __init__(self) -> None:
        self.begun = 0.0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Starts the clock."""
        if trainer.global_step == WARM:
            self.begun = time.perf_counter()


def lightning_step(experiment: Experiment, steps: int) -> float:
    """Samples per second of the task under Lightning, data ready."""
    network, batch = ready(experiment)
    keys = experiment.training
    task = SegmentationTask(network, build_loss(LOSS), keys, 0, Budget(WARM + steps, None))
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=WARM + steps,
        gradient_clip_val=keys.gradient_clip,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(Ready(batch, (WARM + steps) * keys.batch), keys.batch))
    return keys.batch * steps / (time.perf_counter() - clock.begun)


def whole_run(data: Path, steps: int) -> float:
    """Samples per second of a run, from the first step to the last, validations in it."""
    with tempfile.TemporaryDirectory() as scratch:
        experiment = Experiment.load(
            CONFIG,
            [
                f"data.root={data}",
                f"training.max_steps={steps}",
                "training.max_minutes=null",
                f"training.validations={max(1, steps // STEPS_PER_VALIDATION)}",
                f"tracking.uri=sqlite:///{scratch}/mlflow.db",
            ],
        )
        folder = Path(scratch, "run")
        medseg.study.prepare_folder(folder, False)
        _, fitted = medseg.study.train(experiment, folder, torch.device("cpu"))
        return experiment.training.batch * steps / fitted.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--run-steps", type=int, default=600, help="of the whole run, which validates too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="isbi_em; without it the whole run is left out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    experiment = Experiment.load(CONFIG, ["data.root=."])
    pairs = [(bare(experiment, given.steps), lightning_step(experiment, given.steps)) for _ in range(3)]
    base = sorted(b for b, _ in pairs)[1]
    result: dict[str, Any] = {
        "command": f"python benchmarks/training_step.py --steps {given.steps} --threads {given.threads} --data FOLDER",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "bare_samples_per_second": round(base, 3),
        "step_ratios": [round(own / plain, 4) for plain, own in pairs],
        "step_ratio": round(sorted(own / plain for plain, own in pairs)[1], 4),
    }
    if given.data:
        result["all_ratio"] = round(whole_run(given.data, given.run_steps) / base, 4)
    print(json.dumps(result, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
