"""``medseg train`` that begins with other weights: what is printed, kept, and gone on from."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medseg import build_network
from medseg.package import read_card, read_network


def weights_of(run):
    return load_file(run / "model" / "weights.safetensors")


@pytest.fixture
def padded(keys, tmp_path):
    """A config of a network with a ResNet, its keys, and a file that torchvision could have written for it."""
    config = tmp_path / "resnet.yaml"
    config.write_text(
        "name: resnet\ndata: {validation: 0.25}\ninference: {mode: whole}\n"
        "network: {name: fcn_resnet, backbone: resnet18}\n"
    )
    torch.manual_seed(3)
    backbone = build_network({"name": "fcn_resnet", "backbone": "resnet18", "width": 2, "in_channels": 3}).backbone
    file = tmp_path / "resnet18.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in backbone.state_dict().items()}, file)
    others = [key for key in keys if not key.startswith("network.depth")]
    return config, [*others, f"network.pretrained={file}"], file


def test_a_run_goes_on_from_another_s_weights_and_keeps_what_is_frozen(medseg, config, keys, trained, tmp_path):
    before = weights_of(trained)
    part = next(iter(before)).partition(".")[0]
    words = [*keys, f"training.init_from={trained}", f"training.freeze=[{part}]", "seed=5"]
    code, _, err = medseg("train", config, *words, "-o", tmp_path / "run")
    assert code == 0
    after, count = (
        weights_of(tmp_path / "run"),
        len(list(build_network(read_card(trained / "model").network).parameters())),
    )
    assert f"training.init_from: {count} of the {count} parameters of unet" in err
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(after[key], before[key]) for key in before if key.startswith(f"{part}."))
    digest = read_card(trained / "model").weights_sha256
    assert read_card(tmp_path / "run" / "model").training["init_from"] == {"name": "unet", "sha256": digest}


def test_pretrained_weights_are_loaded_said_and_noted(medseg, padded, tmp_path):
    config, keys, file = padded
    code, _, err = medseg("train", config, *keys, "training.freeze=[backbone]", "-o", tmp_path / "run")
    assert code == 0
    assert "network.pretrained: 100 tensors of torchvision's resnet18; 3 input channels averaged for 1;" in err
    card, after = read_card(tmp_path / "run" / "model"), weights_of(tmp_path / "run")
    assert "pretrained" not in card.network
    assert card.training["pretrained"]["kind"] == "resnet18"
    read_network(tmp_path / "run" / "model", card)
    for key, tensor in load_file(file).items():
        if key != "conv1.weight":
            assert torch.equal(after[f"backbone.{key}"], tensor), key


def test_a_run_is_resumed_without_the_file_that_it_began_with(medseg, padded, tmp_path):
    config, keys, file = padded
    assert medseg("train", config, *keys, "-o", tmp_path / "run")[0] == 0
    noted = json.loads((tmp_path / "run" / "initial.json").read_text())
    file.unlink()
    code, _, err = medseg(
        "train", tmp_path / "run" / "experiment.yaml", "training.max_steps=4", "--resume", tmp_path / "run"
    )
    assert code == 0, err
    assert "network.pretrained" not in err
    assert json.loads((tmp_path / "run" / "initial.json").read_text()) == noted


def test_wrong_weights_are_one_sentence(refused, padded, keys, config, trained, tmp_path):
    resnet, words, _ = padded
    digest = "0" * 64
    web = ["network.pretrained.url=http://host/w.pth", f"network.pretrained.sha256={digest}"]
    short = ["network.pretrained.url=https://host/w.pth", "network.pretrained.sha256=abc"]
    out = ["-o", tmp_path / "run", "--overwrite"]
    assert "only https://" in refused("train", config, *keys, *web, *out)
    assert "64 digits" in refused("train", config, *keys, *short, *out)
    assert "goes with its digest" in refused("train", config, *keys, "network.pretrained=https://host/w.pth", *out)
    assert "did you mean 'sha256'" in refused("train", config, *keys, web[0], "network.pretrained.sha25=a", *out)
    assert "has no backbone" in refused("train", config, *keys, words[-1], *out)
    assert "do not fit" in refused("train", resnet, *words, "network.width=4", *out)
    assert "did you mean 'backbone.conv1'" in refused("train", resnet, *words, "training.freeze=[backbone.conv]", *out)
    assert "does not fit" in refused("train", resnet, *words, f"training.init_from={trained}", *out)
