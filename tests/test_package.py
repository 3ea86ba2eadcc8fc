import json
import pickle
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg import MedsegError, build_network
from medseg.package import MODEL, WEIGHTS, ModelCard, find_package, read_card, read_network, write_package
from medseg.scans.preprocessing import Preprocessing

SPEC = {"name": "unet", "width": 2, "depth": 1, "norm": "batch", "in_channels": 1, "out_channels": 1}


def card(**changes):
    values = {
        "medseg": "0",
        "network": SPEC,
        "activation": "sigmoid",
        "labels": {"values": {"background": 0, "cell": 255}, "foreground": ["cell"], "instances": False},
        "preprocessing": Preprocessing(),
    }
    return ModelCard(**{**values, **changes})


@pytest.fixture
def package(tmp_path):
    torch.manual_seed(0)
    return write_package(tmp_path / "run" / "model", build_network(SPEC), card())


def test_a_package_brings_the_same_network_back(package):
    torch.manual_seed(0)
    wanted = build_network(SPEC).eval()
    read = read_card(package)
    network = read_network(package, read)
    x = torch.randn(1, 1, 28, 28)
    assert torch.equal(network(x), wanted(x))
    assert read.label_map.foreground == ("cell",)


def test_a_package_is_two_files_and_no_pickle(package):
    assert sorted(p.name for p in package.iterdir()) == [MODEL, WEIGHTS]
    for file in package.iterdir():
        with pytest.raises(Exception):  # noqa: B017 - whatever pickle says of it
            pickle.loads(file.read_bytes())


def test_it_is_found_by_its_run(package):
    assert find_package(package.parent) == package == find_package(package)


def test_the_folds_of_a_cross_validation_are_named(package, tmp_path):
    for fold in ("fold0", "fold1"):
        shutil.copytree(package, tmp_path / "folds" / fold / "model")
    with pytest.raises(MedsegError, match=r"a model for each of 2 folds: name one, such as .*fold0"):
        find_package(tmp_path / "folds")


def test_writing_again_replaces_it(package):
    torch.manual_seed(1)
    other = build_network(SPEC)
    write_package(package, other, card(training={"step": 7}))
    assert read_card(package).training == {"step": 7}
    assert torch.equal(read_network(package, read_card(package)).score.weight, other.score.weight)
    assert [p.name for p in package.parent.iterdir()] == ["model"]


def edit(package, **changes):
    path = package / MODEL
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99 and this medseg reads up to 4: install a newer medseg"),
        ({"activation": "relu"}, "activation"),
        ({"hook": "os.system"}, "hook"),
        ({"labels": {"values": 3}}, "labels"),
        ({"network": {"name": "os.system"}}, "network.name is 'os.system'"),
        ({"network": {**SPEC, "width": 4}}, "tensor .* has shape .* another network"),
        ({"network": {**SPEC, "depth": 2}}, "belong to another network"),
        ({"weights_sha256": "0" * 64}, "SHA-256"),
        ({"preprocessing": {"spacing_mm": [-1]}}, "spacing_mm"),
    ],
)
def test_a_card_that_is_wrong_is_refused(package, changes, message):
    edit(package, **changes)
    with pytest.raises(MedsegError, match=message):
        read_network(package, read_card(package))


def test_a_card_cannot_name_a_path(package, tmp_path):
    """No key of the card is a path: the weights' name is fixed, other keys are refused."""
    edit(package, weights="../../elsewhere.safetensors")
    with pytest.raises(MedsegError, match="weights"):
        read_card(package)


@pytest.mark.parametrize("content", ["", "{", "[1]", "nan", '"text"'])
def test_a_card_that_is_no_object_is_refused(package, content):
    (package / MODEL).write_text(content)
    with pytest.raises(MedsegError):
        read_card(package)


@given(st.binary(max_size=64))
def test_weights_that_are_none_are_refused(tmp_path_factory, content):
    folder = write_package(tmp_path_factory.mktemp("p") / "model", build_network(SPEC), card())
    (folder / WEIGHTS).write_bytes(content)
    import hashlib

    edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(MedsegError, match=WEIGHTS):
        read_network(folder, read_card(folder))


def test_missing_parts_are_named(package, tmp_path):
    (package / WEIGHTS).unlink()
    with pytest.raises(MedsegError, match="missing"):
        read_network(package, read_card(package))
    with pytest.raises(MedsegError, match="none does not exist; a model is a package's folder or a run's"):
        find_package(tmp_path / "none")
    with pytest.raises(MedsegError, match="is a file"):
        find_package(package / MODEL)


def test_a_package_of_an_earlier_format_has_no_steps(package):
    content = json.loads((package / MODEL).read_text())
    assert content.pop("postprocessing") == []
    (package / MODEL).write_text(json.dumps({**content, "format": 2}))
    assert read_card(package).postprocessing == []
