import json
import subprocess
import sys

import pytest

KINDS = ("always", "never")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(folder):
    return (folder / "model" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("when", KINDS)
def test_the_weights_are_the_same_wherever_the_voxels_come_from(medseg, config, keys, trained, tmp_path, cache, when):
    """In memory (the shared run), prepared, and through the views each time."""
    more = ["training.cache_mib=0", f"training.prepare={when}"]
    code, _, said = medseg("train", config, *keys, *more, "-o", tmp_path / "run")
    assert code == 0
    assert ("3 cases prepared" in said) == (when == "always")
    assert weights(tmp_path / "run") == weights(trained)


def test_processes_that_are_forked_prepare_what_one_does(medseg, config, keys, cache):
    """As a user starts it: in a process without PyTorch, whose own processes are its forks."""
    words = [sys.executable, "-m", "medseg", "prepare", config, *keys, "--workers", "2"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "3 cases prepared, 0 there already" in done.stderr
    assert "0 cases prepared, 3 there already" in medseg("prepare", config, *keys, "--verify", "--workers", "1")[2]


def test_prepare_once_and_clear(medseg, refused, config, keys, cache):
    code, out, said = medseg("prepare", config, *keys, "--workers", "1")
    assert code == 0
    assert out.splitlines()[-1] == f"prepared: {cache / 'prepared'}"
    assert "3 cases prepared, 0 there already" in said
    assert "0 cases prepared, 3 there already" in medseg("prepare", config, *keys, "--verify", "--workers", "1")[2]
    narrower = [*keys, "preprocessing.normalize.kind=none"]
    assert "3 cases prepared, 0 there already" in medseg("prepare", config, *narrower, "--workers", "1")[2]
    listed = json.loads(medseg("cache", "list", "--json")[1])["rows"]
    prepared = [row for row in listed if row["kind"] == "prepared"]
    assert [row["entries"] for row in prepared] == [6]
    assert "prepared" in medseg("cache", "clear", "--kind", "prepared")[1]
    assert "prepared" not in medseg("cache", "list")[1]
    assert "facts" in medseg("cache", "list")[1]
    refused("prepare", config, *keys, "data.root=nowhere")
    refused("prepare", "nowhere.yaml")
