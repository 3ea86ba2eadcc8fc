import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg import __version__
from medseg.cli.app import main

ROOT = Path(__file__).parents[2]


def test_help_and_version(medseg):
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = medseg(*words)
        assert code == 0
        assert "overlap" not in out or out
        for command in ("train", "infer", "evaluate", "ui", "networks", "phantom", "info", "schema"):
            assert command in out
    assert medseg("--version")[1].strip() == f"medseg {__version__}"


def test_exit_codes_of_a_process():
    def run(*words):
        return subprocess.run([sys.executable, "-m", "medseg", *words], capture_output=True, text=True)

    assert run("--help").returncode == 0
    wrong = run("infr")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1


def test_ctrl_c_is_130(monkeypatch, capsys):
    from medseg.networks import NETWORKS

    class Interrupted(dict):
        def __iter__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr("medseg.networks.NETWORKS", Interrupted(NETWORKS))
    assert main(["networks"]) == 130


def test_networks(medseg, refused):
    code, out, _ = medseg("networks")
    assert code == 0
    assert "31 030 658" in out
    rows = json.loads(medseg("networks", "--json")[1])
    assert {"name", "paper", "parameters", "halo", "step", "exact"} <= set(rows[0])
    one = json.loads(medseg("networks", "unet", "--json")[1])
    assert one["halo"] == [92, 92]
    assert "depth" in medseg("networks", "unet")[1]
    assert "did you mean 'unet'" in refused("networks", "unett")


def test_phantom_info_and_evaluate(medseg, refused, tmp_path):
    root = tmp_path / "p"
    assert medseg("phantom", "cells2d", "-o", root, "--cases", "2", "--size", "64", "--seed", "3")[0] == 0
    assert json.loads((root / "dataset.json").read_text())["dims"] == 2
    image = next((root / "images").iterdir())
    code, out, _ = medseg("info", image)
    assert code == 0
    assert "YX" in out
    described = json.loads(medseg("info", image, "--json")[1])
    assert described["shape"] == [64, 64]
    code, out, _ = medseg("evaluate", "--predictions", root / "labels", "--references", root / "labels", "--json")
    assert code == 0
    assert json.loads(out)["summary"]["membrane"]["dice"]["mean"] == 1.0
    report = tmp_path / "report"
    assert medseg("evaluate", "--predictions", root / "labels", "--references", root, "-o", report)[0] == 0
    assert {p.name for p in report.iterdir()} == {"metrics.csv", "metrics.json", "report.html"}
    refused("evaluate", "--predictions", root / "labels", "--references", root, "-o", report)
    refused("phantom", "cells2d", "-o", root, "--cases", "1", "--size", "64")
    refused("phantom", "cells4d", "-o", tmp_path / "q")
    refused("phantom", "cells2d", "-o", tmp_path / "q", "--size", "big")
    refused("info", tmp_path / "none.nii")
    refused("evaluate", "--predictions", tmp_path / "none", "--references", root)


def test_missing_predictions_count_unless_left_out(medseg, tmp_path):
    root = tmp_path / "p"
    assert medseg("phantom", "cells2d", "-o", root, "--cases", "2", "--size", "64")[0] == 0
    one = tmp_path / "one"
    one.mkdir()
    first = sorted((root / "labels").iterdir())[0]
    (one / first.name).write_bytes(first.read_bytes())
    words = ["evaluate", "--predictions", one, "--references", root / "labels", "--json"]
    assert json.loads(medseg(*words)[1])["summary"]["membrane"]["dice"]["mean"] == 0.5
    assert json.loads(medseg(*words, "--predicted-only")[1])["summary"]["membrane"]["dice"]["mean"] == 1.0


def commands_of(path):
    """The medseg command lines in a Markdown file's indented and fenced blocks."""
    for line in path.read_text().splitlines():
        if match := re.match(r"(?: {4}|\$ )?\s*\$?\s*medseg (\S.*)$", line):
            yield match[1].split("  #")[0].split("   ")[0]


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_documented_command_is_one(path, monkeypatch):
    """Each is parsed by the command line itself, to the point where the command would run."""
    import typer.main

    from medseg.cli.app import app

    for line in commands_of(path):
        name, *words = shlex.split(line.replace("...", "").replace("[", "").replace("]", ""))
        command = typer.main.get_command(app).commands[name]
        command.make_context(name, list(words), resilient_parsing=False)


@pytest.mark.parametrize(
    "words",
    [
        ("infer", "{scan}", "-o", "{out}", "-m", "{run}"),
        ("export", "{run}", "--to", "onnx", "-o", "{out}"),
        ("train", "--resume", "{run}"),
        ("evaluate", "{run}"),
        ("register", "{run}", "--name", "x"),
    ],
    ids=lambda words: words[0],
)
def test_a_run_that_does_not_exist_is_told_with_the_nearest(refused, tmp_path, words):
    for name in ("unet-20261121", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("a.tif", "unet-2026112.txt"):
        (tmp_path / name).touch()
    places = {"scan": tmp_path / "a.tif", "run": tmp_path / "unet-2026112", "out": tmp_path / "o.onnx"}
    error = refused(*(word.format(**places) for word in words))
    assert f"{places['run']} does not exist; did you mean 'unet-20261121'?" in error


@pytest.mark.parametrize("words", [("train",), ("prepare",), ("postprocess", "masks", "-o", "out", "--steps")])
def test_brackets_beyond_any_depth_are_no_yaml(refused, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "a.tif", np.zeros((4, 4), np.uint8))
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000)
    assert "deep.yaml cannot be read" in refused(*words, "deep.yaml")
    if words == ("train",):
        (tmp_path / "flat.yaml").write_text("name: a\n")
        assert "is not YAML" in refused("train", "flat.yaml", "training.window=" + "[" * 5000)
