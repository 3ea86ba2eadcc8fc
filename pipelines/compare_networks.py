"""Every architecture on one data set, under one budget: one MLflow experiment, one table, one plot of Dice and cost.

    python pipelines/compare_networks.py [configs/compare/phantom.yaml] [KEY=VALUE ...] [--networks fcn32s segnet]
                                         [--seeds 0 1 2] [--steps N] [--folder FOLDER] [--results FOLDER]

Each network is trained (medseg train), segments the cases that no training has seen (medseg infer), is scored, and is
measured in a process of its own. What is done is not done again, as long as its settings are the same; what was
interrupted goes on; what failed is told, and the rest goes on.

    FOLDER/comparison.csv .json .md .png     the table and the plot, which the run «summary» in MLflow has as well
    FOLDER/NAME-seed0/                       config.yaml, the run, its masks, result.json, log.txt
    FOLDER/mlflow.db                         the store, unless tracking.uri names another
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from medseg import Experiment, MedsegError, open_scan
from medseg.datasets.layouts import find_cases
from medseg.errors import ConfigError, nearest
from medseg.evaluation.metrics import evaluate_pair
from medseg.evaluation.objects import Objects, compare_objects
from medseg.evaluation.report import Spread
from medseg.experiment import Data, Loss, NetworkSpec, Tracking
from medseg.files import digest_of, read_json, write_json, write_text
from medseg.inference.settings import InferenceSettings
from medseg.package import find_package, read_card
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.scan import stem_of
from medseg.tracking.table import Column, Row, as_csv, as_json, as_markdown, unknown
from medseg.training.settings import TrainingSettings
from medseg.yaml_source import YamlSource

CONFIG = Path(__file__).parents[1] / "configs" / "compare" / "phantom.yaml"
BUDGET = {"max_steps", "max_minutes"}
QUARTILES = ("smallest", "smaller", "larger", "largest")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectSettings(_Section):
    """What counts as an object, and as its boundary."""

    labels: list[str] | None = Field(None, description="whose objects; any label of the files; null: the foreground")
    least: PositiveInt = Field(1, description="voxels that an object has at least")
    tolerance: PositiveFloat = Field(2.0, description="of boundaries, in voxels of the finest spacing")


class Entry(_Section):
    """One network, and what it needs otherwise than the rest; the budget is the same for all."""

    network: NetworkSpec
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @model_validator(mode="before")
    @classmethod
    def _within_budget(cls, values: Any) -> Any:
        training = values.get("training") if isinstance(values, Mapping) else None
        if isinstance(training, Mapping) and BUDGET & training.keys():
            raise ValueError("max_steps and max_minutes belong to the training of all: there is one budget")
        return values


class Comparison(_Section):
    """One comparison: an experiment with several networks in place of one."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)
    description: str = ""
    seeds: list[int] = Field([0], min_length=1)
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    loss: Loss = Loss()
    augmentation: list[dict[str, Any]] = [{"name": "flip"}]
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()
    tracking: Tracking = Tracking()
    objects: ObjectSettings = ObjectSettings()
    networks: dict[str, Entry] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path, overrides: Iterable[str] = ()) -> Comparison:
        """From a YAML file, with ``key.sub=value`` laid over it; every network is built once, without its weights.

        Raises:
            ConfigError: with file, line and key of the first thing that is wrong.
        """
        from medseg.networks import describe

        source = YamlSource.read(path)
        for override in overrides:
            source.override(override)
        try:
            comparison = cls.model_validate(source.content)
        except ValidationError as error:
            raise ConfigError(source.explain(error, cls)) from None
        for name, entry in comparison.networks.items():
            try:
                describe(entry.network.arguments)
            except MedsegError as error:
                raise ConfigError(f"{path}: networks.{name}: {error}") from None
        return comparison

    def experiment(self, name: str, seed: int) -> Experiment:
        """The experiment of one network and seed."""
        own = {"networks", "seeds", "objects", "name"}
        content = self.model_dump(mode="json", exclude_unset=True, exclude=own)
        entry = self.networks[name]
        changes = entry.training.model_dump(mode="json", exclude_unset=True, exclude=BUDGET)
        content["training"] = {**content.get("training", {}), **changes}
        content["tracking"] = {**content.get("tracking", {}), "experiment": self.tracking.experiment or self.name}
        return Experiment.model_validate(
            {**content, "name": f"{self.name}-{name}", "seed": seed, "network": entry.network.model_dump(mode="json")}
        )


@dataclass(frozen=True)
class Job:
    """One network and seed, in a folder of its own."""

    name: str
    seed: int
    experiment: Experiment
    objects: ObjectSettings
    folder: Path
    device: str

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        return digest_of([self.experiment.model_dump(mode="json"), self.objects.model_dump(mode="json")])

    @property
    def result(self) -> dict[str, Any] | None:
        """What an earlier start found with the same settings, or None."""
        path = self.folder / "result.json"
        found = read_json(path, "a network's result") if path.exists() else {}
        return found if found.get("digest") == self.digest else None

    def run(self) -> dict[str, Any]:
        """Trains, segments, scores and measures.

        Raises:
            MedsegError: where a command fails.
        """
        begun = time.monotonic()
        run, out = self.folder / "run", self.folder / "masks"
        self._train(run)
        images, references = self._unseen(run)
        text = self._medseg("infer", "-m", run, *images, "-o", out, "--overwrite", "--json", "--device", self.device)
        scans = json.loads(text)["scans"]
        masks = {Path(scan["input"]): Path(scan["output"]) for scan in scans}
        cases, objects = self._scored([masks[image] for image in images], references)
        seconds = sum(scan["stages"]["network"]["seconds"] for scan in scans)
        cost = json.loads(
            self._call("--measure", run, "--batch", self.experiment.training.batch, "--device", self.device)
        )
        cost["seconds_per_mvoxel"] = seconds / sum(scan["voxels"] for scan in scans) * 1e6
        content = {
            "name": self.name,
            "network": self.experiment.network.name,
            "seed": self.seed,
            "digest": self.digest,
            "run": read_json(run / "run.json", "the run's place in MLflow"),
            "cases": cases,
            "objects": {key: values.tolist() for key, values in vars(objects).items()},
            "cost": cost,
            "steps": self._steps(run),
            "seconds": time.monotonic() - begun,
        }
        write_json(self.folder / "result.json", content)
        return content

    def _train(self, run: Path) -> None:
        """A new run, or the one that was interrupted with the same settings."""
        config = self.folder / "config.yaml"
        text = self.experiment.to_yaml()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (run / "last.ckpt").exists() and config.exists() and config.read_text(encoding="utf-8") == text:
            self._medseg("train", "--resume", run, "--device", self.device)
            return
        write_text(config, text)
        self._medseg("train", config, "-o", run, "--overwrite", "--device", self.device)

    def _unseen(self, run: Path) -> tuple[list[Path], list[Path]]:
        """Images and labels of the test cases, or of the validation cases where none are kept for the test."""
        split = read_json(run / "split.json", "the run's split")
        wanted = split["test"] or split["validation"]
        root = self.experiment.data.root or Path("data") / f"phantom-{self.experiment.data.phantom.kind}"  # type: ignore[union-attr]
        cases = {case.name: case for case in find_cases(root)}
        return [cases[name].image for name in wanted], [cases[name].label for name in wanted]  # type: ignore[misc]

    @staticmethod
    def _steps(run: Path) -> int:
        *_, last = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
        return int(last.split(",")[0])

    def _scored(self, masks: Sequence[Path], references: Sequence[Path]) -> tuple[list[dict[str, Any]], Objects]:
        """Per case Dice and boundary F1, means over the labels; and the objects of all cases together."""
        labels = read_card(find_package(self.folder / "run")).label_map
        cases, objects = [], []
        for mask, reference in zip(masks, references, strict=True):
            pair = open_scan(mask, labels=True), open_scan(reference, labels=True)
            counts = evaluate_pair(*pair, labels)
            dice = [counts.scores(number).dice for number in range(1, labels.classes + 1)]
            settings = self.objects
            found = compare_objects(*pair, labels, settings.labels, settings.tolerance, settings.least)
            cases.append({"case": stem_of(reference), "dice": _mean(dice), "boundary_f1": found.boundary_f1})
            objects.append(found.objects)
        return cases, Objects.pooled(objects)

    def _medseg(self, *words: object) -> str:
        return self._command("medseg", [sys.executable, "-m", "medseg"], words)

    def _call(self, *words: object) -> str:
        return self._command("compare_networks.py", [sys.executable, __file__], words)

    def _command(self, shown: str, program: list[str], words: Sequence[object]) -> str:
        """Runs a command line, shown as it would be typed; returns its stdout. What it says goes to the log."""
        typed = [str(word) for word in words]
        line = " ".join([shown, *typed])
        print(f"$ {line if len(line) <= 160 else f'{line[:100]} ... {line[-50:]}'}", flush=True)
        done = subprocess.run([*program, *typed], capture_output=True, text=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ {line}\n{done.stderr}")
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            last = next((said for said in reversed(done.stderr.splitlines()) if said.strip()), "it said nothing")
            raise MedsegError(f"{words[0]} failed: {last.removeprefix('error: ')}; see {self.folder / 'log.txt'}")
        return done.stdout


def measure(run: Path, batch: int, device: str) -> dict[str, Any]:
    """What a trained network costs at its training window; meant for a process that has done nothing else."""
    from medseg.inference.cost import Forward, count_forward
    from medseg.inference.device import find_device
    from medseg.inference.model import Model
    from medseg.training.step_cost import index_bytes, step_bytes

    model = Model.load(run, find_device(device))
    network, window = model.network, model.card.window
    assert window is not None
    padded = any(field.padded for field in network.fields)
    answered = math.prod(window) if padded else math.prod(network.footprint.core_shape(window))
    return {
        "window": window,
        "batch": batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops_per_voxel": count_forward(network, window).flops / answered,
        "inference_mib": _mib(Forward(network).measure(window).bytes),
        "training_mib": _mib(step_bytes(network, window, batch)),
        "index_mib": _mib(index_bytes(network, window, batch)),
    }


COLUMNS = (
    Column("network", "{}", ("name",)),
    Column("Dice ± cases ± seeds", "{:.4f}", ("dice", "dice_sd_cases", "dice_sd_seeds"), " ± "),
    Column("boundary F1", "{:.3f}", ("boundary_f1",)),
    Column("recall, small to large quartile", "{:.2f}", tuple(f"recall_{quartile}" for quartile in QUARTILES)),
    Column("matched, small to large", "{:.2f}", tuple(f"matched_{quartile}" for quartile in QUARTILES)),
    Column("fragments / object", "{:.2f}", ("fragments_per_object",)),
    Column("objects / component", "{:.1f}", ("objects_per_component",)),
    Column("parameters", "{:,}", ("parameters",)),
    Column("FLOPs / voxel", "{:,.0f}", ("flops_per_voxel",)),
    Column("s / Mvoxel", "{:.2f}", ("seconds_per_mvoxel",)),
    Column("MiB: training step", "{:.0f}", ("training_mib",)),
    Column("inference", "{:.0f}", ("inference_mib",)),
    Column("pooling indices", "{:.2f}", ("index_mib",)),
    Column("steps", "{}", ("steps",)),
    Column("seeds", "{}", ("seeds",)),
)
COSTS = ("flops_per_voxel", "seconds_per_mvoxel", "training_mib", "inference_mib", "index_mib")


def row_of(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One network's results over its seeds as a row of the table."""
    cases = [[case["dice"] for case in result["cases"]] for result in results]
    over_cases = Spread.of(map(_mean, zip(*cases, strict=True)))
    objects = Objects.pooled(Objects(**{k: np.array(v) for k, v in r["objects"].items()}) for r in results)
    costs = {key: _mean([result["cost"][key] for result in results]) for key in COSTS}
    return {
        "name": results[0]["name"],
        "dice": over_cases.mean,
        "dice_sd_cases": over_cases.sd,
        "dice_sd_seeds": Spread.of(map(_mean, cases)).sd,
        "boundary_f1": _mean([case["boundary_f1"] for result in results for case in result["cases"]]),
        **{f"recall_{name}": share for name, share in zip(QUARTILES, objects.recall_by_size, strict=True)},
        **{f"matched_{name}": share for name, share in zip(QUARTILES, objects.matched_by_size, strict=True)},
        "fragments_per_object": objects.fragments_per_object,
        "objects_per_component": objects.objects_per_component,
        **costs,
        "parameters": results[0]["cost"]["parameters"],
        "steps": results[0]["steps"],
        "seeds": len(results),
    }


def write_tables(rows: Sequence[Row], comparison: Comparison, failed: dict[str, str], folder: Path) -> list[Path]:
    """The table as CSV, JSON and Markdown; returns the files."""
    about = {"name": comparison.name, "description": comparison.description.strip(), "failed": failed}
    losses = "".join(f"\n{name} failed: {why}\n" for name, why in failed.items())
    texts = {
        "csv": as_csv(rows, COLUMNS),
        "json": as_json(rows, about),
        "md": f"{about['description']}\n\n{as_markdown(rows, COLUMNS)}{losses}",
    }
    for kind, text in texts.items():
        write_text(folder / f"comparison.{kind}", text)
    return [folder / f"comparison.{kind}" for kind in texts]


def draw(rows: Sequence[Row], comparison: Comparison, path: Path) -> Path:
    """The plot of Dice against what a voxel costs, counted and measured."""
    from medseg.tracking.tradeoff import Point, plot_tradeoff

    points = [
        Point(row["name"], row["dice"], 0.0 if unknown(row["dice_sd_cases"]) else row["dice_sd_cases"],
              (row["flops_per_voxel"], row["seconds_per_mvoxel"]))
        for row in rows
    ]  # fmt: skip
    costs = ("FLOPs per voxel", "seconds per Mvoxel, as medseg infer goes")
    plot_tradeoff(points, "Dice (bars: SD over cases)", costs, comparison.name, path)
    return path


def track(
    comparison: Comparison, results: Sequence[dict[str, Any]], rows: Sequence[Row], files: Sequence[Path]
) -> None:
    """The results beside each training's curves, and one run with the table and the plot."""
    from medseg.tracking.run import Run
    from medseg.tracking.store import Store

    store = Store.resolve(comparison.tracking.uri)
    experiment = comparison.tracking.experiment or comparison.name
    for result in results:
        row = row_of([result])
        values = {f"test/{key}": value for key, value in row.items() if key != "name" and not unknown(value)}
        folder = files[0].parent / f"{result['name']}-seed{result['seed']}" / "run"
        with Run.start(store, experiment, result["name"], {}, folder=folder) as run:
            run.log(values, step=0)
    params, tags = comparison.model_dump(mode="json"), {"summary": "comparison"}
    with Run.start(store, experiment, "summary", params, tags, files[0].parent) as run:
        run.table("comparison", rows)
        run.description(next(f for f in files if f.suffix == ".md").read_text(encoding="utf-8"))
        for file in files:
            run.artifact(file)


def compare(comparison: Comparison, jobs: Sequence[Job], folder: Path) -> dict[str, str]:
    """Does what is not done, and leaves table, plot and MLflow runs; returns what failed, and why."""
    results, failed = [], {}
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}, seed {job.seed}", flush=True)
        try:
            result = job.result or job.run()
        except MedsegError as error:
            failed[job.folder.name] = str(error)
            print(f"failed: {error}", file=sys.stderr, flush=True)
            continue
        results.append(result)
        dice = _mean([case["dice"] for case in result["cases"]])
        print(f"  Dice {dice:.4f}, {result['seconds']:.0f} s", flush=True)
    if results:
        names = dict.fromkeys(result["name"] for result in results)
        rows = [row_of([result for result in results if result["name"] == name]) for name in names]
        files = write_tables(rows, comparison, failed, folder)
        files.append(draw(rows, comparison, folder / "comparison.png"))
        track(comparison, results, rows, files)
        print(files[2].read_text(encoding="utf-8"))
    return failed


def _mean(values: Sequence[float]) -> float:
    return Spread.of(values).mean


def _mib(count: int | None) -> float:
    return math.nan if count is None else count / 2**20


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default=str(CONFIG))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the config")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="of the config's networks; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: the config's")
    parser.add_argument("--steps", type=int, help="in place of the config's budget")
    parser.add_argument("--folder", type=Path, help="default: runs/compare-NAME")
    parser.add_argument("--results", type=Path, help="a folder that gets a copy of the table and the plot")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--measure", type=Path, metavar="RUN", help="measure one run in this process, and print it")
    parser.add_argument("--batch", type=int, default=1, help="of the training step that is measured")
    return parser.parse_intermixed_args(words)


def _prepared(given: argparse.Namespace) -> tuple[Comparison, list[Job], Path]:
    overrides = list(given.overrides)
    if "=" in given.config and not Path(given.config).exists():
        overrides, given.config = [given.config, *overrides], str(CONFIG)
    if given.steps is not None:
        overrides += [f"training.max_steps={given.steps}", "training.max_minutes=null"]
    comparison = Comparison.load(Path(given.config), overrides)
    folder = given.folder or Path("runs") / f"compare-{comparison.name}"
    if comparison.tracking.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
        store = comparison.tracking.model_copy(update={"uri": f"sqlite:///{folder / 'mlflow.db'}"})
        comparison = comparison.model_copy(update={"tracking": store})
    names = given.networks or list(comparison.networks)
    for name in names:
        if name not in comparison.networks:
            known = ", ".join(comparison.networks)
            raise ConfigError(
                f"--networks {name}: not in {given.config}{nearest(name, comparison.networks)}; it has {known}"
            )
    jobs = [
        Job(
            name,
            seed,
            comparison.experiment(name, seed),
            comparison.objects,
            folder / f"{name}-seed{seed}",
            given.device,
        )
        for name in names
        for seed in given.seeds or comparison.seeds
    ]
    return comparison, jobs, folder


def main(words: Sequence[str] | None = None) -> int:
    """Compares, or measures one run for the process that does."""
    given = _arguments(words)
    try:
        if given.measure is not None:
            print(json.dumps(measure(given.measure, given.batch, given.device)))
            return 0
        comparison, jobs, folder = _prepared(given)
        failed = compare(comparison, jobs, folder)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was done is kept: the same command goes on", file=sys.stderr)
        return 130
    if given.results is not None:
        given.results.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("comparison.*")):
            shutil.copyfile(file, given.results / file.name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
