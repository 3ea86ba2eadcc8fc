import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from medseg import Experiment
from medseg.package import read_card, read_network

CONFIGS = sorted(p for p in (Path(__file__).parents[2] / "configs").rglob("*.yaml") if p.parent.name != "compare")
# Those of comparisons have a loader of their own: tests/test_compare_networks.py.


def test_a_run_leaves_what_it_promises(trained):
    held = {p.name for p in trained.iterdir()}
    assert {"experiment.yaml", "split.json", "metrics.csv", "last.ckpt", "model", "run.json", "tracking"} == held
    split = json.loads((trained / "split.json").read_text())
    assert (len(split["train"]), len(split["validation"])) == (3, 1)
    card = read_card(trained / "model")
    assert card.training["dataset"] == "cells"
    assert read_network(trained / "model", card).in_channels == 1
    assert Experiment.load(trained / "experiment.yaml").network.width == 2


def test_the_last_line_is_the_model(medseg, config, keys, tmp_path):
    code, out, _ = medseg("train", config, *keys, "-o", tmp_path / "run")
    assert code == 0
    assert out.splitlines()[-1] == f"model: {tmp_path / 'run' / 'model'}"


def test_a_folder_that_holds_a_run_is_kept(refused, medseg, config, keys, trained):
    before = {p.name: p.stat().st_mtime_ns for p in trained.iterdir()}
    assert "--resume" in refused("train", config, *keys, "-o", trained)
    assert {p.name: p.stat().st_mtime_ns for p in trained.iterdir()} == before


def start(config, keys, folder):
    command = [sys.executable, "-m", "medseg", "train", str(config), *keys, "-o", str(folder)]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # convolutions round by them
    return subprocess.Popen(command, env=threads, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_and_resumed_ends_with_the_same_weights(medseg, config, keys, tmp_path):
    """SIGKILL as soon as there is a checkpoint; workers, dropout and MLflow included."""
    long = [*keys, "training.max_steps=24", "training.validations=8", "network.dropout=0.5", "training.workers=1"]
    assert medseg("train", config, *long, "-o", tmp_path / "whole")[0] == 0
    process = start(config, long, tmp_path / "torn")
    checkpoint = tmp_path / "torn" / "last.ckpt"
    while not checkpoint.exists() and process.poll() is None:
        os.sched_yield()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    code, out, _ = medseg("train", "--resume", tmp_path / "torn")
    assert code == 0
    assert out.splitlines()[-1] == f"model: {tmp_path / 'torn' / 'model'}"
    states = [torch.load(tmp_path / n / "last.ckpt", weights_only=True)["state_dict"] for n in ("whole", "torn")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    packages = [(tmp_path / n / "model" / "weights.safetensors").read_bytes() for n in ("whole", "torn")]
    assert packages[0] == packages[1]
    assert _steps(tmp_path / "whole") == _steps(tmp_path / "torn")
    for name in ("train/loss", "val/dice_mean"):
        logged = _history(tmp_path / "torn", name)
        assert logged == sorted(set(logged)), "a resumed run must not double steps"


def _steps(folder):
    return [line.split(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]


def _history(folder, name):
    from medseg.tracking.store import Store

    place = json.loads((folder / "run.json").read_text())
    client = Store.resolve(place["store"]).client()
    return [metric.step for metric in client.get_metric_history(place["run_id"], name)]


def test_the_run_is_in_mlflow(trained):
    from medseg.tracking.store import Store

    place = json.loads((trained / "run.json").read_text())
    client = Store.resolve(place["store"]).client()
    run = client.get_run(place["run_id"])
    assert run.info.status == "FINISHED"
    assert {"train/loss", "val/loss", "val/dice/cell", "val/dice_mean", "lr", "throughput"} <= set(run.data.metrics)
    assert run.data.params["network.width"] == "2"
    artifacts = {p.path for p in client.list_artifacts(place["run_id"])}
    assert {"experiment.yaml", "split.json", "model", "images", "tables"} <= artifacts
    assert run.inputs.dataset_inputs[0].dataset.name == "cells"
    patients = json.dumps([dict(run.data.params), dict(run.data.tags)])
    assert str(Path.home()) not in patients or Path.home() == Path("/")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_trains_a_step(medseg, path, keys, tmp_path, three_dimensional, data_set):
    """As shipped, but on tiny data, narrow and for one step."""
    experiment = yaml.safe_load(path.read_text())
    dims = experiment["network"]["dims"]
    supervised = "supervised" in experiment["network"]
    shallowest = 2 if supervised else 1
    narrow = [key for key in keys if not key.startswith(("data.root", "training.window", "training.max_steps"))]
    changes = [
        f"data.root={data_set if dims == 2 else three_dimensional}",
        "training.max_steps=1",
        f"network.depth={shallowest}",
        *(["network.supervised=1"] if supervised else []),
        f"training.window=[{16 if supervised else 28 if dims == 2 else 20}]",
        "data.train=null",
        "data.validation=0.25",
        "data.labels=null",
        "data.foreground=null",
    ]
    code, _, err = medseg("train", path, *narrow, *changes, "-o", tmp_path / "run")
    assert code == 0, err


@pytest.fixture(scope="session")
def three_dimensional(tmp_path_factory):
    from medseg.datasets.phantom import write_phantom

    return write_phantom("organs3d", tmp_path_factory.mktemp("organs") / "p", 4, (32, 32, 16), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.root=nowhere", "data.root nowhere does not exist"),
        ("training.max_stepz=1", "did you mean 'max_steps'"),
        ("network.wdth=2", "network.wdth is no argument of unet; did you mean 'width'"),
        ("network.name=unett", "did you mean 'unet'"),
        ("training.window=[27]", "tile 27 is not admissible"),
        ("loss.name=dice", "loss.name"),
        ("augmentation=[{name: flipp}]", "did you mean 'flip'"),
        ("data.labels={cell: 1}", "undeclared label value"),
        ("data.foreground=[cells]", "did you mean 'cell'"),
        ("data.validation=[case9]", "case9"),
        ("tracking.uri=file:///somewhere", "sqlite:///"),
        ("network.dims=3", "axes"),
    ],
)
def test_a_key_that_is_wrong_is_refused_and_nothing_is_left(refused, config, keys, tmp_path, change, message):
    assert message in refused("train", config, *keys, change, "-o", tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.parametrize("change", ["data.labels={cell: 1}", "data.validation=[case9]", "network.dims=3"])
def test_a_training_that_its_data_refuse_leaves_no_folder(refused, config, keys, tmp_path, change):
    refused("train", config, *keys, change, "-o", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_no_config_and_wrong_folders_are_told(refused, tmp_path, config):
    assert "no CONFIG is given" in refused("train")
    assert "holds no experiment.yaml" in refused("train", "--resume", tmp_path)
    assert "does not exist" in refused("train", tmp_path / "none.yaml")
    assert "device 'cuda:99'" in refused("train", config, "data.root=.", "--device", "cuda:99")
