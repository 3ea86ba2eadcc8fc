"""ONNX files say what their networks say, at the sizes that they claim, and hold what it takes to use them."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg import build_network, create_mask, open_scan, segment
from medseg.cli.app import main
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.export import onnx_file
from medseg.export.check import Agreement, compare, windows_to_check
from medseg.export.onnx_file import Exported, export_onnx, metadata_of, reason_of
from medseg.export.onnx_graph import BinAverages, exportable, generic_window, quiet, small_window
from medseg.inference.decode import Decoder
from medseg.inference.emit import Output
from medseg.inference.window import choose_tiling
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Preprocessing

LABELS = Labels({"background": 0, "a": 3, "b": 7})
UNET = {"name": "unet", "dims": 2, "depth": 1, "width": 2}
SEGNET = {"name": "segnet", "dims": 3, "depth": 1, "width": 2}
PSPNET = {"name": "pspnet", "dims": 2, "backbone": "resnet18", "width": 2}


def model(spec, **changes):
    """A network with its card; classes are about equally frequent."""
    torch.manual_seed(0)
    spec = {**spec, "in_channels": 1, "out_channels": 3}
    network = build_network(spec).eval()
    values = {
        "medseg": "0",
        "network": spec,
        "activation": "softmax",
        "labels": LABELS.to_dict(),
        "preprocessing": Preprocessing(spacing_mm=[0.5] * network.dims),
        "weights_sha256": "0" * 64,
    }
    return network, ModelCard(**{**values, **changes})


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The valid U-Net, for windows of many sizes."""
    network, card = model(UNET, window=[44, 44])
    path = tmp_path_factory.mktemp("onnx") / "unet.onnx"
    return network, card, export_onnx(network, card, path)


def test_many_sizes_give_the_same_logits(exported):
    network, _, done = exported
    assert (done.sizes, done.why) == ("steps", "")
    assert len(done.checked) > 2 and all(one.agrees and one.differing == 0 for one in done.checked)
    session = session_of(done.path)
    assert session.get_inputs()[0].shape == ["batch", 1, "y", "x"]
    assert session.get_outputs()[0].shape == ["batch", 3, "y_out", "x_out"]
    for shape in ((1, 1, 18, 30), (3, 1, 64, 20)):
        x = torch.randn(shape)
        with torch.inference_mode():
            wanted = network(x).numpy()
        given = session.run(None, {"window": x.numpy()})[0]
        assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()


def segmented_by_metadata(path, image):
    """(*n) labels of an image, by overlap tiles, from what the file says alone."""
    session = session_of(path)
    about = session.get_modelmeta().custom_metadata_map
    halo, step, offset, trim = (json.loads(about[f"footprint.{key}"]) for key in ("halo", "step", "offset", "trim"))
    core = [s * 3 for s in step]
    window = [c + 2 * h + (o - c - 2 * h) % s for c, h, s, o in zip(core, halo, step, offset, strict=True)]
    spare = [w - 2 * h - c for w, h, c in zip(window, halo, core, strict=True)]
    over = [-n % c + extra for n, c, extra in zip(image.shape, core, spare, strict=True)]
    padded = np.pad(image, [(h, h + o) for h, o in zip(halo, over, strict=True)], mode="reflect")
    labels = np.zeros(image.shape, np.uint8)
    values = np.array(json.loads(about["classes"]), np.uint8)
    for origin in product(*(range(0, n, c) for n, c in zip(image.shape, core, strict=True))):
        read = tuple(slice(a, a + w) for a, w in zip(origin, window, strict=True))
        logits = session.run(None, {"window": padded[read][None, None]})[0][0]
        own = tuple(slice(h - t[0], h - t[0] + c) for h, t, c in zip(halo, trim, core, strict=True))
        classes = logits[(slice(None), *own)].argmax(0)
        write = tuple(slice(a, a + c) for a, c in zip(origin, core, strict=True))
        place = labels[write]
        place[...] = values[classes][tuple(slice(n) for n in place.shape)]
    return labels


def test_the_metadata_is_all_that_tiling_needs(exported):
    network, _, done = exported
    image = np.random.default_rng(0).normal(size=(23, 14)).astype(np.float32)
    scan = open_scan(image[None])
    sink = create_mask(None, scan)
    output = Output(sink, Decoder("softmax"), LABELS.decode)
    segment(scan, network, choose_tiling(scan, network), output)
    assert len(np.unique(sink.array)) > 1
    assert np.array_equal(segmented_by_metadata(done.path, image), sink.array)


def test_the_metadata_says_what_the_package_says(exported):
    network, card, done = exported
    graph = onnx.load(done.path)
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert about == metadata_of(network, card, done.window, "steps")
    assert json.loads(about["footprint.halo"]) == list(network.footprint.halo)
    assert json.loads(about["spacing_mm"]) == [0.5, 0.5]
    assert Preprocessing.model_validate_json(about["preprocessing"]) == card.preprocessing
    assert Labels.from_dict(json.loads(about["labels"])) == LABELS
    assert (about["activation"], about["medseg.weights_sha256"], about["sizes"]) == ("softmax", "0" * 64, "steps")
    assert json.loads(about["window"]) == [44, 44]
    assert graph.opset_import[0].version == 18
    assert not any(tensor.external_data for tensor in graph.graph.initializer)


def test_one_size_gives_the_same_logits(tmp_path):
    network, card = model(SEGNET)
    window = small_window(network)
    done = export_onnx(network, card, tmp_path / "a.onnx", window)
    assert (done.sizes, done.window) == ("fixed", window)
    x = torch.randn(2, 1, *window)
    with torch.inference_mode():
        wanted = network(x).numpy()
    given = session_of(done.path).run(None, {"window": x.numpy()})[0]
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(1, 4))
def test_bins_are_averaged_as_by_torch(sizes, bins):
    sizes = [max(n, bins) for n in sizes]
    x = torch.randn(2, 3, *sizes, dtype=torch.float64)
    layer = {2: torch.nn.AdaptiveAvgPool2d, 3: torch.nn.AdaptiveAvgPool3d}[len(sizes)](bins)
    assert torch.allclose(BinAverages(bins)(x), layer(x), atol=1e-12)


def test_bins_of_any_size_are_exported(tmp_path):
    from torch.export import Dim

    x = torch.randn(2, 3, 20, 28)
    axes = dict.fromkeys((2, 3), Dim.DYNAMIC)
    with quiet():
        torch.onnx.export(BinAverages(3), (x,), tmp_path / "a.onnx", dynamo=True, dynamic_shapes=(axes,), verbose=False)
    session = session_of(tmp_path / "a.onnx")
    for shape in ((2, 3, 20, 28), (2, 3, 4, 3), (2, 3, 31, 7)):
        x = torch.randn(shape)
        given = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert np.allclose(given, torch.nn.AdaptiveAvgPool2d(3)(x), atol=1e-6)


def test_the_network_itself_is_left_as_it_is():
    network, _ = model(PSPNET)
    before = repr(network)
    assert repr(exportable(network)) != before
    assert repr(network) == before


@pytest.mark.parametrize("spec", [UNET, SEGNET, PSPNET], ids=lambda spec: spec["name"])
def test_windows_are_admissible(spec):
    network, _ = model(spec)
    for window in (small_window(network), generic_window(network)):
        network.check_window(window)
        assert all((n - f.offset) % f.step == 0 for n, f in zip(window, network.fields, strict=True))
    assert len(set(generic_window(network))) == network.dims


def test_windows_of_any_size_leave_each_level_an_odd_size():
    network, _ = model(PSPNET)
    step = network.footprint.step[0]
    base = small_window(network)
    checked = [window for _, window in windows_to_check(network, base, "any", None)]
    assert all(any(n // 2**level % 2 for n, *_ in checked) for level in range(int(math.log2(step))))
    assert windows_to_check(network, base, "fixed", None) == [(1, base), (2, base)]
    for _, window in windows_to_check(network, base, "steps", None):
        network.check_window(window)


def test_a_file_of_other_weights_is_refused(exported):
    _, card, done = exported
    torch.manual_seed(1)
    other = build_network(card.network).eval()
    with pytest.raises(MedsegError, match="logits differ by"):
        compare(done.path, other, Decoder("softmax"), [(1, (44, 44))])


def test_not_a_number_never_agrees():
    assert not Agreement((1, 1, 4, 4), math.inf, 1.0, 0, 16).agrees
    assert Agreement((1, 1, 4, 4), 0.0, 0.0, 0, 16).agrees


def refusing(*kinds):
    """An attempt that fails for these kinds of sizes."""

    def attempt(network, card, beside, window, sizes, opset):
        if sizes in kinds:
            raise RuntimeError("step 3 failed") from ValueError("no word for einsum")
        beside.write_bytes(b"graph")
        return []

    return attempt


def test_sizes_are_fixed_where_no_others_are_right(monkeypatch, tmp_path):
    network, card = model(UNET, window=[44, 44])
    monkeypatch.setattr(onnx_file, "_attempt", refusing("any", "steps"))
    assert export_onnx(network, card, tmp_path / "a.onnx") == Exported(
        tmp_path / "a.onnx", "fixed", (44, 44), 18, [], "no word for einsum"
    )


def test_where_nothing_is_right_nothing_is_written(monkeypatch, tmp_path):
    network, card = model(UNET)
    (tmp_path / "a.onnx").write_bytes(b"before")
    monkeypatch.setattr(onnx_file, "_attempt", refusing("any", "steps", "fixed"))
    with pytest.raises(MedsegError, match=r"unet has no ONNX graph .*no word for einsum.*no file was written"):
        export_onnx(network, card, tmp_path / "a.onnx", overwrite=True)
    assert (tmp_path / "a.onnx").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_reason_is_one_line():
    assert reason_of(MedsegError("ours")) == "ours"
    assert reason_of(RuntimeError()) == "RuntimeError"
    assert reason_of(RuntimeError("first\nsecond")) == "first"


@pytest.fixture
def package(tmp_path):
    network, card = model(UNET, window=[44, 44])
    return write_package(tmp_path / "model", network, card)


def test_the_command(package, tmp_path, capsys):
    capsys.readouterr()
    out = tmp_path / "new" / "a.onnx"
    words = ["export", str(package), "--to", "onnx", "-o", str(out), "--shape", "44", "--opset", "20"]
    assert main(words) == 0
    printed, err = capsys.readouterr()
    assert printed.strip() == str(out)
    assert "takes windows of 44 x 44 alone" in err
    assert "0 of" in err and "labels differ" in err
    assert onnx.load(out).opset_import[0].version == 20
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "tensorrt"], "is none of onnx"),
        (["-o", "a.pt"], "is no ONNX file"),
        (["--shape", "45"], "is not admissible"),
        (["--shape", "44,44,44"], "3 axes"),
        (["--shape", "big"], "is no size"),
        (["--opset", "9"], "give one from 18 to"),
    ],
)
def test_what_is_wrong_is_one_sentence(package, words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", str(package), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not list(Path().glob("*.onnx"))


def test_without_the_extra_the_command_that_brings_it_is_told(package, monkeypatch, capsys):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    assert main(["export", str(package)]) == 2
    assert "pip install 'medseg[export]'" in capsys.readouterr().err
