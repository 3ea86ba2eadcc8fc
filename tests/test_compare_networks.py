"""The pipeline that compares networks: its configs, what it leaves behind, and how it goes on."""

import csv
import importlib.util
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg import NETWORKS, MedsegError
from medseg.cli.app import main as medseg
from medseg.tracking.store import Store

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "pipelines" / "compare_networks.py"
CONFIGS = sorted((ROOT / "configs" / "compare").glob("*.yaml"))
TINY = """\
name: tiny
data: {root: FOLDER, validation: 0.25, test: 0.25}
training: {window: [32], batch: 1, max_steps: 2, validations: 1, workers: 0, warmup_steps: 0}
tracking: {pictures: 0}
objects: {labels: [cell], least: 2}
networks:
  segnet: {network: {name: segnet, width: 2, depth: 2}}
  basic:
    network: {name: segnet_basic, width: 2, depth: 2, kernel: 3}
    training: {learning_rate: 1.0e-4}
  broken: {network: {name: unetr, width: 1, image_size: 48}}
"""


@pytest.fixture(scope="module")
def pipeline():
    spec = importlib.util.spec_from_file_location("compare_networks", PIPELINE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_networks"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Eight 48 x 40 images of squares."""
    root = tmp_path_factory.mktemp("data") / "squares"
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(8):
        label = np.zeros((48, 40), np.uint8)
        label[4:20, 4 : 8 + i], label[30:44, 22:36] = 1, 1
        tifffile.imwrite(
            root / "images" / f"case{i}.tif", (label * 120 + rng.integers(0, 60, label.shape)).astype(np.uint8)
        )
        tifffile.imwrite(root / "labels" / f"case{i}.tif", label)
    (root / "dataset.json").write_text(
        json.dumps({"name": "squares", "dims": 2, "labels": {"background": 0, "cell": 1}})
    )
    path = root / "tiny.yaml"
    path.write_text(TINY.replace("FOLDER", str(root)))
    return path


@pytest.fixture(scope="module")
def run(pipeline):
    """Runs a command line of the pipeline in this process, and what it starts; returns code, stdout and stderr."""

    def within(job, shown, program, words):
        typed = [str(word) for word in words]
        print("$", shown, *typed)
        start = medseg if shown == "medseg" else pipeline.main
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = start(typed)
        if code:
            raise MedsegError(f"{words[0]} failed: {err.getvalue().splitlines()[-1]}")
        return out.getvalue()

    def start(*words):
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            patch.setattr(pipeline.Job, "_command", within)
            with redirect_stderr(io.StringIO()) as err:
                code = pipeline.main([str(word) for word in words])
        return code, out.getvalue(), err.getvalue()

    return start


@pytest.fixture(scope="module")
def compared(run, config, tmp_path_factory):
    """A folder with two networks done, and one that failed; and what was said."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, run(config, "--folder", folder, "--results", folder / "kept", "--device", "cpu")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_comparison_loads_and_its_experiments_share_all_but_the_network(pipeline, path):
    comparison = pipeline.Comparison.load(path)
    experiments = [comparison.experiment(name, 3) for name in comparison.networks]
    assert len({(e.training.max_steps, e.training.max_minutes, e.training.batch) for e in experiments}) == 1
    assert len({json.dumps([e.data.model_dump(mode="json"), e.augmentation]) for e in experiments}) == 1
    assert {e.seed for e in experiments} == {3}
    assert {e.tracking.experiment for e in experiments} == {comparison.name}


def test_every_network_is_in_a_shipped_comparison(pipeline):
    loaded = [pipeline.Comparison.load(path) for path in CONFIGS]
    named = [{entry.network.name for entry in comparison.networks.values()} for comparison in loaded]
    assert set(NETWORKS) == set().union(*named)
    assert set(NETWORKS) - {"unet3d"} in named


def test_every_network_of_a_shipped_comparison_learns_a_step(pipeline):
    """As shipped, but for a batch of one, on noise; what two comparisons have in common once."""
    import torch

    from medseg.networks import build_network
    from medseg.study import window_of
    from medseg.training.losses import build_loss

    done = set()
    for comparison in map(pipeline.Comparison.load, CONFIGS):
        loss = build_loss(comparison.loss.model_dump())
        for name, entry in comparison.networks.items():
            experiment = comparison.experiment(name, 0)
            network = build_network({**entry.network.arguments, "in_channels": 1, "out_channels": loss.channels(2)})
            window = window_of(experiment, network)
            experiment.inference.resolved(network, list(window))
            terms = (str(entry.network.arguments), window)
            if terms in done:
                continue
            done.add(terms)
            logits = network.train()(torch.rand(1, 1, *window))
            value = loss(logits, torch.randint(0, 3, (len(logits), *logits.shape[2:])))
            value.backward()
            assert value.isfinite(), name
            assert any(p.grad is not None and p.grad.any() for p in network.parameters()), name


def test_what_is_done_is_tabled_and_what_fails_is_told(compared):
    folder, (code, _, err) = compared
    assert code == 1
    assert "failed: train failed: error: " in err
    with (folder / "comparison.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"segnet", "basic"}
    for row in rows.values():
        assert 0 <= float(row["dice"]) <= 1
        assert float(row["flops_per_voxel"]) > 0
        assert float(row["seconds_per_mvoxel"]) > 0
        assert float(row["index_mib"]) > 0
        assert row["steps"] == "2"
    content = json.loads((folder / "comparison.json").read_text())
    assert list(content["failed"]) == ["broken-seed0"]
    markdown = (folder / "comparison.md").read_text()
    assert all(f"| {name} |" in markdown for name in rows)
    assert "broken-seed0 failed: " in markdown
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (folder / "kept").iterdir()} == {
        f"comparison.{kind}" for kind in ("csv", "json", "md", "png")
    }


def test_an_entry_overrides_the_rate_and_nothing_else(compared, pipeline, config):
    comparison = pipeline.Comparison.load(config)
    one, other = (comparison.experiment(name, 0).training for name in ("segnet", "basic"))
    assert other.learning_rate == 1e-4
    assert other.model_copy(update={"learning_rate": one.learning_rate}) == one


def test_all_is_one_experiment_in_mlflow(compared):
    folder, _ = compared
    store = Store.resolve(f"sqlite:///{folder / 'mlflow.db'}")
    client = store.client()
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    place = json.loads((folder / "run.json").read_text())
    assert runs["summary"].info.run_id == place["run_id"]
    artifacts = {file.path for file in client.list_artifacts(place["run_id"])}
    assert {"comparison.csv", "comparison.json", "comparison.md", "comparison.png", "tables"} <= artifacts
    for name in ("segnet", "basic"):
        result = json.loads((folder / f"{name}-seed0" / "result.json").read_text())
        trained = client.get_run(result["run"]["run_id"])
        assert trained.info.experiment_id == experiment.experiment_id
        assert {"test/dice", "test/flops_per_voxel", "train/loss"} <= set(trained.data.metrics)


def test_what_is_done_is_not_done_again_unless_its_settings_change(compared, run, pipeline, config):
    folder, _ = compared
    weights = folder / "segnet-seed0" / "run" / "model" / "weights.safetensors"
    before, summary = weights.stat().st_mtime_ns, (folder / "run.json").read_text()
    code, out, err = run(config, "--folder", folder, "--networks", "segnet", "--device", "cpu")
    assert code == 0, err
    assert "$ medseg" not in out
    assert weights.stat().st_mtime_ns == before
    assert (folder / "run.json").read_text() == summary
    job = pipeline._prepared(pipeline._arguments([str(config), "--folder", str(folder), "--steps", "3"]))[1][0]
    assert job.name == "segnet"
    assert job.result is None


def test_a_run_that_was_interrupted_goes_on(compared, run, config):
    folder, _ = compared
    (folder / "basic-seed0" / "result.json").unlink()
    code, out, err = run(config, "--folder", folder, "--networks", "basic", "--device", "cpu")
    assert code == 0, err
    assert f"$ medseg train --resume {folder / 'basic-seed0' / 'run'}" in out


def test_a_command_that_fails_is_told_with_its_last_words(pipeline, config, tmp_path):
    job = pipeline._prepared(pipeline._arguments([str(config), "--folder", str(tmp_path)]))[1][0]
    job.folder.mkdir()
    with pytest.raises(MedsegError, match=r"it failed: so it is; see .*log.txt"):
        job._command("it", [sys.executable, "-c", "import sys; sys.exit('error: so it is')"], ["it"])
    assert "so it is" in (job.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learning_rate:", "learning_rat:"), r"tiny.yaml:\d+: .* key .*learning_rat; did you mean 'learning_rate'"),
        (("learning_rate: 1.0e-4", "max_steps: 9"), r"one budget"),
        (("name: segnet,", "name: segnett,"), r"networks.segnet: network.name is 'segnett'; did you mean 'segnet'"),
        (("kernel: 3", "kernle: 3"), r"networks.basic: network.kernle is no argument .*mean 'kernel'"),
        (("networks:", "network:"), r"unknown key network; did you mean 'networks'"),
        (("least: 2", "least: 0"), r"tiny.yaml:5: objects.least is 0"),
    ],
)  # fmt: skip
def test_a_config_that_is_wrong_is_told_with_its_key(pipeline, config, tmp_path, change, message):
    path = tmp_path / "tiny.yaml"
    path.write_text(config.read_text().replace(*change))
    with pytest.raises(MedsegError, match=message) as error:
        pipeline.Comparison.load(path)
    assert len(str(error.value)) <= 500


def test_a_network_that_is_not_in_the_config_is_told(pipeline, config):
    with pytest.raises(MedsegError, match="did you mean 'segnet'"):
        pipeline._prepared(pipeline._arguments([str(config), "--networks", "segne"]))
