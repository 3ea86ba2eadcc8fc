"""A tiny data set, a tiny trained run, and the command line in this process."""

import json

import numpy as np
import pytest
import tifffile
import torch

from medseg.cli.app import main

KEYS = [
    "network.width=2",
    "network.depth=1",
    "training.max_steps=2",
    "training.validations=1",
    "training.warmup_steps=0",
    "training.workers=0",
    "training.window=[28]",
    "tracking.pictures=1",
    "tracking.review=false",
]


@pytest.fixture(scope="session")
def data_set(tmp_path_factory):
    """Four 48 x 40 images of bright cells, with labels 0 and 255."""
    root = tmp_path_factory.mktemp("data") / "cells"
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(4):
        label = rng.random((48, 40)) < 0.3
        image = (label * 120 + rng.integers(0, 60, label.shape)).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"case{i}.tif", image)
        tifffile.imwrite(root / "labels" / f"case{i}.tif", (label * 255).astype(np.uint8))
    info = {"name": "cells", "dims": 2, "channels": 1, "labels": {"background": 0, "cell": 255}}
    (root / "dataset.json").write_text(json.dumps(info))
    return root


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text("name: tiny\ndata: {validation: 0.25}\nnetwork: {name: unet, norm: batch}\n")
    return path


@pytest.fixture(scope="session")
def keys(data_set, tmp_path_factory):
    store = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    return [f"data.root={data_set}", f"tracking.uri=sqlite:///{store}", *KEYS]


@pytest.fixture(scope="session")
def trained(config, keys, tmp_path_factory):
    """A run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", str(config), *keys, "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def medseg(capsys):
    """Runs a command line, which leaves PyTorch's threads as they were; returns exit code, stdout and stderr."""

    def run(*words):
        capsys.readouterr()
        threads = torch.get_num_threads()
        code = main([str(word) for word in words])
        torch.set_num_threads(threads)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refused(medseg):
    """Runs a command line that must be refused: exit 2, and one line on stderr that begins «error:»."""

    def run(*words):
        code, out, err = medseg(*words)
        lines = [line for line in err.splitlines() if line.strip()]
        assert code == 2, (out, err)
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith("error:") for line in lines) == 1
        assert "Traceback" not in err
        assert len(lines[-1]) <= 507
        return lines[-1]

    return run
