"""``medseg infer``: the ways through a scan, what may be held, what is said before and after."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
import torch
from monai.inferers import sliding_window_inference

from medseg import Box, build_network, open_scan
from medseg.cli.app import main
from medseg.cli.progress import InferenceBar
from medseg.inference.model import Model
from medseg.inference.pipeline import Progress
from medseg.package import read_card, write_package
from medseg.scans.header import HeaderScan


@pytest.fixture(scope="session")
def padded(config, keys, tmp_path_factory):
    """A run of a network whose convolutions are padded."""
    folder = tmp_path_factory.mktemp("runs") / "padded"
    assert main(["train", str(config), *keys, "network.padding=same", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def over_window(padded, tmp_path_factory):
    """A package whose network looks at its whole window."""
    card = read_card(padded / "model")
    card = card.model_copy(update={"network": {**card.network, "norm": "instance"}})
    return write_package(tmp_path_factory.mktemp("models") / "instance", build_network(card.network), card)


@pytest.fixture
def scan(tmp_path, data_set):
    shutil.copy(data_set / "images" / "case0.tif", tmp_path / "a.tif")
    return tmp_path / "a.tif"


def voxels_of(path):
    found = open_scan(path)
    return found.read(Box.of(found.shape))


def view_of(path, model):
    """(1, C, \\*shape) as the network sees a scan."""
    view = model.card.preprocessing.view(open_scan(path))
    return torch.from_numpy(view.read(Box.of(view.shape)))[None]


@pytest.mark.parametrize(
    ("words", "roi", "how"),
    [
        ([], (28, 28), {}),
        (["--overlap", "0.25"], (28, 28), {"overlap": 0.25}),
        (["--blend", "constant", "--batch", "3"], (28, 28), {"mode": "constant"}),
        (["--sliding-window", "--roi", "20,24", "--sigma-scale", "0.2"], (20, 24), {"sigma_scale": 0.2}),
        (["--roi", "64"], (64, 64), {"padding_mode": "reflect"}),
        (["--roi", "64", "--padding", "zeros"], (64, 64), {}),
    ],
)
def test_windows_slide_as_monai_s(medseg, padded, scan, tmp_path, words, roi, how):
    """The way that belongs to the package of a padded network, and what the command line lays over it."""
    words = [*words, "--probabilities", "--probability-type", "float32", "--json"]
    code, text, err = medseg("infer", "-m", padded, scan, "-o", tmp_path / "o", *words)
    assert code == 0, err
    (row,) = json.loads(text)["scans"]
    assert (row["mode"], row["window"]) == ("sliding-window", list(roi))
    model = Model.load(padded, torch.device("cpu"))
    about = {"overlap": 0.5, "mode": "gaussian", "sigma_scale": 0.125, **how}
    with torch.inference_mode():
        wanted = sliding_window_inference(view_of(scan, model), roi, 1, model.network, **about)[0].sigmoid().numpy()
    assert np.abs(voxels_of(tmp_path / "o" / "probabilities" / "a.tif") - wanted).max() < 1e-5
    sure = np.abs(wanted[0] - 0.5) > 1e-4
    assert (voxels_of(tmp_path / "o" / "a.tif")[0] == np.where(wanted[0] >= 0.5, 255, 0))[sure].all()


def test_the_way_belongs_to_the_package(trained, padded):
    ways = [read_card(run / "model").inference for run in (trained, padded)]
    assert [way.mode for way in ways] == ["tile-overlap", "sliding-window"]
    assert ways[1].roi == [28, 28]


def test_tiles_of_a_padded_network_say_what_its_halo_costs(medseg, padded, scan, tmp_path):
    code, text, err = medseg("infer", "-m", padded, scan, "-o", tmp_path / "o", "--tile", "46", "--json")
    assert code == 0
    (row,) = json.loads(text)["scans"]
    assert row["mode"] == "tile-overlap"
    cost = row["tiles"] * 46 * 46 / (48 * 40)
    assert f"the halo of this padded network costs {cost:.1f} times the work of one pass" in err


def test_flips_make_the_mask_of_a_flipped_scan_the_flipped_mask(medseg, trained, scan, tmp_path):
    flipped = tmp_path / "flipped.tif"
    tifffile.imwrite(flipped, tifffile.imread(scan)[:, ::-1])
    apart = {}
    for tta in ([], ["--tta", "flips"], ["--tta", "rotations"]):
        out = tmp_path / f"o{len(apart)}"
        words = ["infer", "-m", trained, scan, flipped, "-o", out, "--tile", "28", *tta]
        assert medseg(*words, "--probabilities", "--probability-type", "float32")[0] == 0
        one, other = (voxels_of(out / "probabilities" / name) for name in ("a.tif", "flipped.tif"))
        apart[" ".join(tta)] = np.abs(one - other[..., ::-1]).max()
    assert apart["--tta flips"] < 1e-5 < apart[""]
    assert apart["--tta rotations"] < 1e-5


@pytest.mark.parametrize("mirrored", [[0], [1], [], None])
def test_flips_are_those_that_training_mirrored(medseg, trained, scan, tmp_path, mirrored):
    """A model that saw no patient upside down is not asked for one; a package that names no axis is asked for all."""
    shutil.copytree(trained / "model", tmp_path / "model")
    card = tmp_path / "model" / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"mirrored": mirrored}))
    flipped = [tmp_path / "flipped0.tif", tmp_path / "flipped1.tif"]
    for axis, path in enumerate(flipped):
        tifffile.imwrite(path, np.flip(tifffile.imread(scan), axis))
    words = ["--tile", "28", "--tta", "flips", "--probabilities", "--probability-type", "float32"]
    assert medseg("infer", "-m", tmp_path / "model", scan, *flipped, "-o", tmp_path / "o", *words)[0] == 0
    one, *others = (voxels_of(tmp_path / "o" / "probabilities" / path.name) for path in (scan, *flipped))
    apart = [np.abs(one - np.flip(other, other.ndim - 2 + axis)).max() for axis, other in enumerate(others)]
    assert [far < 1e-5 for far in apart] == [not mirrored or axis in mirrored for axis in (0, 1)]


def test_flips_of_an_ensemble_are_those_of_all_its_models(refused, medseg, trained, scan, tmp_path):
    models = []
    for mirrored in ([0], [1], [0, 1]):
        models.append(tmp_path / f"model{len(models)}")
        shutil.copytree(trained / "model", models[-1])
        card = models[-1] / "model.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | {"mirrored": mirrored}))
    line = (scan, "-o", tmp_path / "o", "--tile", "28", "--tta")
    error = refused("infer", "-m", models[0], "-m", models[1], *line, "flips")
    assert "(0, 1), and along none in all of them" in error and error.endswith("leave --tta out")
    assert medseg("infer", "-m", models[0], "-m", models[1], *line, "rotations")[0] == 0
    assert medseg("infer", "-m", models[0], "-m", models[2], *line, "flips", "--overwrite")[0] == 0


def test_too_little_memory_says_how_much_would_do(refused, medseg, trained, scan, tmp_path):
    words = ["infer", "-m", trained, scan, "-o", tmp_path / "o"]
    error = refused(*words, "--memory", "1MiB")
    least = re.search(r"--memory 1MiB is too little.* give at least --memory (\S+)$", error)
    assert least, error
    assert not (tmp_path / "o" / "a.tif").exists()
    assert medseg(*words, "--memory", least[1])[0] == 0
    each = refused(*words, "--memory", "2MiB", "--workers", "2", "--overwrite")
    assert "for each of 2 workers" in each


def test_a_dry_run_reads_nothing_and_tells_what_the_run_will_do(medseg, trained, scan, tmp_path, monkeypatch):
    nan = tmp_path / "nan.tif"
    tifffile.imwrite(nan, np.full((48, 40), np.nan, np.float32))
    (tmp_path / "bad.tif").write_text("no image")
    words = ["infer", "-m", trained, nan, scan, tmp_path / "bad.tif", "-o", tmp_path / "o", "--tile", "28"]
    with monkeypatch.context() as patch:
        patch.setattr(HeaderScan, "read", None)
        code, text, _ = medseg(*words, "--dry-run")
        assert code == 0
        found, js, _ = medseg(*words, "--dry-run", "--json")
        assert found == 0
    assert not (tmp_path / "o").exists()
    rows = json.loads(js)["scans"]
    assert [row["input"] for row in rows] == [str(nan), str(scan), str(tmp_path / "bad.tif")]
    assert "bad.tif" in rows[2]["why"]
    for row in rows[:2]:
        assert row["shape"] == [48, 40]
        assert row["output_bytes"] == 48 * 40
        assert row["output_bytes"] <= row["disk_needed_bytes"] <= row["disk_free_bytes"]
        assert 0 < row["plan"]["host_bytes"] <= row["host_budget_bytes"]
        assert row["expected_seconds"] > 0
        assert row["statistics_pass"]
        assert row["work"] == pytest.approx(row["plan"]["tiles"] * 28 * 28 / (48 * 40))
    for line in (
        f"{scan}: 48 x 40 uint8 -> {tmp_path / 'o' / 'a.tif'}",
        f"{rows[1]['plan']['tiles']} tiles 12 x 12 apart, window 28 x 28, batch",
        "one pass through the scan for its mean and SD",
        f"{tmp_path / 'bad.tif'}: skipped: ",
    ):
        assert line in text
    code, js, _ = medseg("infer", "-m", trained, scan, "-o", tmp_path / "o", "--tile", "28", "--json")
    (done,) = json.loads(js)["scans"]
    for key in ("core", "window", "tiles", "batch", "beam", "threads"):
        assert done["plan"][key] == rows[1]["plan"][key]


def test_a_dry_run_runs_nothing_that_does_not_fit(medseg, trained, scan, tmp_path):
    words = ["infer", "-m", trained, scan, "-o", tmp_path / "o", "--whole", "--memory", "1MiB", "--dry-run"]
    code, text, _ = medseg(*words)
    assert code == 0
    assert "DOES NOT FIT" in text
    assert "time: not known" in text


def test_a_dry_run_of_sliding_windows(medseg, padded, scan, tmp_path):
    code, text, _ = medseg("infer", "-m", padded, scan, "-o", tmp_path / "o", "--dry-run")
    assert code == 0
    assert "sliding-window: 6 windows 14 x 14 apart, window 28 x 28" in text


def test_workers_and_threads(medseg, trained, scan, tmp_path):
    words = ["infer", "-m", trained, scan, "--tile", "28", "--batch", "2", "--threads", "1", "--json"]
    results = [medseg(*words, "-o", tmp_path / n, "--workers", n) for n in ("1", "2")]
    assert [code for code, *_ in results] == [0, 0]
    one, two = (json.loads(text)["scans"][0] for _, text, _ in results)
    assert one["plan"]["threads"] == two["plan"]["threads"] == 1
    assert one["tiles"] == two["tiles"] > 2
    assert (tmp_path / "1" / "a.tif").read_bytes() == (tmp_path / "2" / "a.tif").read_bytes()


def test_a_box_is_the_whole_s_there(medseg, trained, scan, tmp_path):
    words = ["infer", "-m", trained, scan, "-o", tmp_path, "--tile", "28", "--format", "nii"]
    assert medseg(*words)[0] == 0
    assert medseg(*words, "--box", "8:20,4:31")[0] == 0
    whole, part = voxels_of(tmp_path / "a.nii"), voxels_of(tmp_path / "a_box_8-20_4-31.nii")
    assert np.array_equal(part, whole[:, 8:20, 4:31])


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32"])
def test_probabilities_have_the_type_that_is_asked_for(medseg, trained, scan, tmp_path, kind):
    words = ["infer", "-m", trained, scan, "-o", tmp_path / "o", "--format", "zarr", "--probabilities"]
    assert medseg(*words, *([] if kind == "float16" else ["--probability-type", kind]))[0] == 0
    assert open_scan(tmp_path / "o" / "probabilities" / "a.ome.zarr").dtype == np.dtype(kind)


def test_one_bad_scan_of_several_is_exit_code_3(medseg, trained, scan, tmp_path):
    (tmp_path / "bad.tif").write_text("no image")
    words = ["infer", "-m", trained, tmp_path / "bad.tif", scan, "-o", tmp_path / "o"]
    code, text, err = medseg(*words, "--json")
    assert code == 3
    assert [row["status"] for row in json.loads(text)["scans"]] == ["skipped", "done"]
    assert "1 of 2 scans were skipped" in err
    assert [row["status"] for row in json.loads((tmp_path / "o" / "report.json").read_text())["scans"]] == [
        "skipped",
        "done",
    ]
    code, text, err = medseg(*words)
    assert code == 3
    assert f"{tmp_path / 'o' / 'a.tif'}  done before" in text
    assert "skipped: " in err


def test_json_accounts_for_each_stage(medseg, trained, scan, tmp_path):
    code, text, _ = medseg("infer", "-m", trained, scan, "-o", tmp_path / "o", "--tile", "28", "--json")
    (row,) = json.loads(text)["scans"]
    assert code == 0
    assert set(row["stages"]) == {"read", "network", "write"}
    assert all(stage["seconds"] > 0 for stage in row["stages"].values())
    assert row["stages"]["read"]["bytes"] == row["tiles"] * 28 * 28 * 4
    assert row["stages"]["write"]["bytes"] == row["voxels"] == 48 * 40
    assert row["peak_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("VALID --roi 28 --tile-overlap", "--roi is for --sliding-window, not for --tile-overlap"),
        ("PADDED --overlap 0.5 --whole", "--overlap is for --sliding-window, not for --whole"),
        ("PADDED --overlap 0.5 --tile 46", "--overlap is for --sliding-window, not for --tile-overlap"),
        ("PADDED --sliding-window --tile 46", "a sliding window's size is --roi"),
        ("PADDED --sliding-window --tile-overlap", "--tile-overlap and --sliding-window exclude each other"),
        ("VALID --sliding-window", "its convolutions are valid"),
        ("VALID --overlap 0.25", "its convolutions are valid"),
        ("OVER --tile-overlap", "looks at its whole window"),
        ("OVER --tile 46", "looks at its whole window"),
        ("PADDED --overlap 1.5", "--overlap 1.5: Input should be less than 1"),
        ("PADDED --blend linear", "--blend linear: Input should be 'gaussian' or 'constant'"),
        ("PADDED --sigma-scale 0", "--sigma-scale 0.0: Input should be greater than 0"),
        ("PADDED --roi 27", "try 26 or 28"),
        ("PADDED --roi 28,28,28", "3 axes for a network of 2"),
        ("PADDED --roi 0", "--roi '0' is no size"),
        ("VALID --tta flip", "did you mean 'flips'"),
        ("VALID --memory lots", "memory 'lots' is no size"),
        ("VALID --memory 0", "memory '0' is no size"),
        ("VALID --device-memory 1GiB --device cpu", "--device-memory needs a CUDA device"),
        ("VALID --amp --device cpu", "--amp needs a CUDA device"),
        ("VALID --box 5:3,0:1", "--box '5:3,0:1' is no box"),
        ("VALID --box 0:4", "--box '0:4' is no box"),
        ("VALID --box a:b,0:1", "--box 'a:b,0:1' is no box"),
        ("VALID --box 0:49,0:40", "(48, 40)"),
        ("VALID --box 0:4,0:4,0:4", "(48, 40)"),
        ("VALID --probabilities --probability-type float64", "--probability-type 'float64' is none of"),
        ("VALID --probability-type uint8", "is for --probabilities"),
        ("VALID --workers 0", "--workers"),
        ("VALID --threads 0", "--threads"),
        ("VALID --batch none", "--batch"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(refused, trained, padded, over_window, scan, tmp_path, words, message):
    models = {"VALID": trained, "PADDED": padded, "OVER": over_window}
    model, *options = words.split()
    assert message in refused("infer", "-m", models[model], scan, "-o", tmp_path / "o", *options)
    assert not (tmp_path / "o").exists()


def test_an_output_that_is_no_folder_is_told(refused, trained, scan):
    assert "a.tif" in refused("infer", "-m", trained, scan, "-o", scan / "o")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_tiles_speed_and_memory(monkeypatch, tmp_path):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stderr", terminal)
    with InferenceBar() as bar:
        bar.show(tmp_path / "chest.nii.gz", Progress(40, done=13, voxels=8 * 10**6, loop_seconds=2.0))
        bar._bar.refresh()
        bar.say("a line that stays")
        bar.done(tmp_path / "chest.nii.gz")
    shown = terminal.getvalue()
    for part in ("chest.nii.gz", "13/40", "1.30 Mvoxel/s", "GiB", "a line that stays"):
        assert part in shown


def test_elsewhere_there_is_no_bar(capsys, tmp_path):
    with InferenceBar() as bar:
        bar.show(tmp_path / "chest.nii.gz", Progress(40, done=13))
        bar.say("a line that stays")
    assert capsys.readouterr().err == "a line that stays\n"
