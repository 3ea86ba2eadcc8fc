"""A report of DICOM scans says neither whose they are nor which series it was, and can be verified all the same."""

import json

import numpy as np
import torch
from dicom_files import write_series

from medseg import build_network, open_scan
from medseg.cli.app import main
from medseg.datasets.checks.facts import image_facts
from medseg.package import ModelCard, write_package
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.preprocessing import Preprocessing

UIDS = ("1.2.77.1", "1.2.77.2")


def package(folder):
    torch.manual_seed(0)
    spec = {"name": "unet", "dims": 3, "depth": 1, "width": 2, "norm": "batch", "in_channels": 1, "out_channels": 2}
    labels = {"values": {"background": 0, "organ": 3}, "foreground": ["organ"], "instances": False}
    card = ModelCard(
        medseg="0", network=spec, activation="softmax", labels=labels, preprocessing=Preprocessing(spacing_mm=None)
    )
    return write_package(folder, build_network(spec).eval(), card)


def test_a_series_is_verified_by_the_digest_of_its_uid(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "scans" / "Doe^Jane"
    for uid in UIDS:
        volume = rng.integers(-200, 900, (12, 10, 8)).astype(np.int16)
        names = [f"{uid}-{k}.dcm" for k in range(8)]
        write_series(folder, volume, np.diag([1.0, 1.0, 2.0, 1.0]), names=names, SeriesInstanceUID=uid)
    assert image_facts(open_scan(folder, series=SeriesChoice(UIDS[1]))).modality == "CT"
    words = ["infer", "-m", str(package(tmp_path / "model")), str(folder), "-o", str(tmp_path / "out")]
    assert main([*words, "--series", UIDS[1], "--tile-overlap"]) == 0
    report = tmp_path / "out" / "report.json"
    assert "Doe" not in report.read_text() and UIDS[1] not in report.read_text()
    assert json.loads(report.read_text())["scans"][0]["input_digest"]
    assert main(["verify", str(report)]) == 0
    (tmp_path / "scans").rename(tmp_path / "moved")
    assert main(["verify", str(report)]) == 2
    capsys.readouterr()
    assert main(["verify", str(report), "--root", str(tmp_path / "moved"), "--json"]) == 0
    assert "Doe" not in capsys.readouterr().out
    for path in (tmp_path / "moved" / "Doe^Jane").glob(f"{UIDS[1]}-*"):
        path.unlink()
    assert main(["verify", str(report), "--root", str(tmp_path / "moved")]) == 4
    said = capsys.readouterr()
    assert "holds the series no more" in said.out and "Doe" not in said.out + said.err
