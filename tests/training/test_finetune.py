"""Laws of going on from other weights: what fits is taken bit by bit, what is frozen stays bit by bit."""

import pytest
import torch
from test_fit import SPEC, Killed, equal, run
from torch import nn

from medseg import MedsegError, build_network
from medseg.datasets.labels import Labels
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Preprocessing
from medseg.training.budget import Budget
from medseg.training.finetune import freeze, frozen_parameters, initialise_from
from medseg.training.losses import build_loss
from medseg.training.settings import TrainingSettings
from medseg.training.task import SegmentationTask

UNET = {"name": "unet", "width": 2, "depth": 2, "norm": "batch", "in_channels": 3, "out_channels": 2}
FCN = {"padding": "same", "width": 2, "in_channels": 1, "out_channels": 2}


def drawn(spec, seed):
    """A network of a spec with nothing left at zero or one."""
    torch.manual_seed(seed)
    network = build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
    return network


def packaged(network, spec, folder):
    labels = Labels({"background": 0, "cell": 1}, ("cell",)).to_dict()
    card = ModelCard(medseg="0", network=spec, activation="softmax", labels=labels, preprocessing=Preprocessing())
    return write_package(folder / "model", network, card)


def begun(spec, folder, seed=1):
    """A network of a spec, begun from the folder's model; what it was before, and what was said."""
    torch.manual_seed(seed)
    network = build_network(spec)
    fresh = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    return network, fresh, str(initialise_from(network, folder))


@pytest.mark.parametrize("place", ["run", "model"])
def test_an_equal_network_is_taken_whole(place, tmp_path):
    old = drawn(UNET, 0)
    package = packaged(old, UNET, tmp_path)
    network, _, said = begun(UNET, tmp_path if place == "run" else package)
    assert equal(network.state_dict(), old.state_dict())
    count = len(list(old.parameters()))
    assert said == f"{count} of the {count} parameters of unet"


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s")])
def test_fcn_is_trained_in_stages(coarse, fine, tmp_path):
    """16s from 32s, 8s from 16s: all that was learned is kept, and the new skip begins at zero."""
    old = drawn({"name": coarse, **FCN}, 0)
    packaged(old, {"name": coarse, **FCN}, tmp_path)
    network, fresh, said = begun({"name": fine, **FCN}, tmp_path)
    own, given = network.state_dict(), old.state_dict()
    learned = [key for key, _ in network.named_parameters()]
    new = [key for key in learned if key not in given]
    assert all(torch.equal(own[key], given[key]) for key in learned if key in given)
    assert all(torch.equal(own[key], fresh[key]) for key in new)
    level = len(network.skip_scores) - 1
    assert set(new) == {f"skip_scores.{level}.weight", f"skip_scores.{level}.bias", f"up.{level}.weight"}
    assert not any(own[key].any() for key in new if key.startswith("skip_scores"))
    assert torch.equal(own["to_window.weight"], fresh["to_window.weight"])
    assert said.startswith(
        f"{len(given) - 1} of the {len(given) - 1} parameters of {coarse}; not in it, so drawn anew: "
    )


def test_a_head_of_other_classes_is_drawn_anew_and_said_so(tmp_path):
    old = drawn(UNET, 0)
    packaged(old, UNET, tmp_path)
    network, fresh, said = begun({**UNET, "out_channels": 5}, tmp_path)
    other = [key for key, tensor in old.state_dict().items() if tensor.shape != fresh[key].shape]
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, fresh[key] if key in other else old.state_dict()[key]), key
    assert len(other) == 2
    assert "it gives 2 channels and this network 5; of other shape, so drawn anew: " in said
    assert f"{other[0]} {tuple(old.state_dict()[other[0]].shape)} for {tuple(fresh[other[0]].shape)}" in said


def test_other_input_channels_are_averaged(tmp_path):
    """One picture in all channels gives what it gave."""
    old = drawn(UNET, 0).eval()
    packaged(old, UNET, tmp_path)
    network, _, said = begun({**UNET, "in_channels": 1}, tmp_path)
    grey = torch.randn(1, 1, 44, 44)
    with torch.inference_mode():
        ours, its = network.eval()(grey), old(grey.expand(-1, 3, -1, -1))
    assert (ours - its).abs().max() <= 1e-5 * its.abs().max()
    assert "3 input channels averaged or repeated for 1" in said


@pytest.mark.parametrize("spec", [UNET, {"name": "fcn16s", **FCN, "fc_size": 3}], ids=["unet", "fcn16s"])
def test_two_axes_are_inflated_to_three(spec, tmp_path):
    """Summed over the new axis, each kernel is the 2D one, as often as its planes meet in a voxel of the output."""
    old = drawn(spec, 0)
    packaged(old, spec, tmp_path)
    network, _, said = begun({**spec, "dims": 3}, tmp_path)
    given = dict(old.named_parameters())
    for key, tensor in network.named_parameters():
        layer = network.get_submodule(key.rpartition(".")[0])
        strides = layer.stride[0] if isinstance(layer, nn.ConvTranspose3d) else 1
        flat = tensor.sum(2) / strides if tensor.ndim == 5 else tensor
        torch.testing.assert_close(flat, given[key], rtol=1e-5, atol=1e-6)
    assert "inflated" in said


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**UNET, "width": 3}, r"\(unet\) does not fit this UNet"),
        ({"name": "segnet", "width": 2, "out_channels": 2}, r"\(unet\) does not fit this SegNet"),
    ],
    ids=["width", "segnet"],
)
def test_what_does_not_fit_at_all_is_refused(other, message, tmp_path):
    packaged(drawn(UNET, 0), UNET, tmp_path)
    with pytest.raises(MedsegError, match=message):
        begun(other, tmp_path)


def test_three_axes_do_not_become_two(tmp_path):
    packaged(drawn({**UNET, "dims": 3}, 0), {**UNET, "dims": 3}, tmp_path)
    with pytest.raises(MedsegError, match="has 3 axes and this network 2"):
        begun(UNET, tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="no model package and no run folder"):
        begun(UNET, tmp_path)


def first_part(spec):
    return next(iter(build_network(spec).named_children()))[0]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_frozen_weights_are_bit_equal_after_training(ema, tmp_path):
    """Parameters and batch norms' statistics; all the others move."""
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in build_network(SPEC).state_dict().items()}
    part = first_part(SPEC)
    after = run(tmp_path / "run", steps=4, freeze=[part], ema=ema, weight_decay=0.1)[0]
    frozen = [key for key in before if key.startswith(f"{part}.")]
    assert any(key.endswith("running_mean") for key in frozen)
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key]) == (key in frozen), key


def test_the_average_does_not_move_what_is_frozen(tmp_path):
    network = drawn(SPEC, 0)
    part, budget = first_part(SPEC), Budget(4, None)
    task = SegmentationTask(
        network, build_loss({"name": "dice_bce"}), TrainingSettings(freeze=[part], ema=0.5), 0, budget
    )
    frozen = set(frozen_parameters(network, [part]))
    before = {key: tensor.clone() for key, tensor in task.average.named_parameters()}
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.add_(0.0 if key in frozen else 1.0)
    task.move_average()
    for key, tensor in task.average.named_parameters():
        assert torch.equal(tensor, before[key]) == (key in frozen)


def test_frozen_batch_norms_stay_in_evaluation_mode():
    network = drawn(SPEC, 0)
    part = first_part(SPEC)
    task = SegmentationTask(
        network, build_loss({"name": "dice_bce"}), TrainingSettings(freeze=[part]), 0, Budget(4, None)
    )
    for mode in (True, False, True):
        task.train(mode)
        for key, layer in task.network.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.training == (mode and not key.startswith(f"{part}."))


def test_a_part_is_named_by_whole_words():
    network = nn.ModuleDict({"score": nn.Linear(2, 2), "scores": nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm2d(2)])})
    assert frozen_parameters(network, ["score"]) == ["score.weight", "score.bias"]
    assert frozen_parameters(network, ["scores.0.bias"]) == ["scores.0.bias"]
    assert freeze(network, ["scores"]) == [network["scores"][1]]
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["backbone.layer9"], r"names 'backbone\.layer9'.*did you mean 'backbone\.layer4'.*backbone, classifier"),
        (["classifer"], r"did you mean 'classifier'"),
        (["back"], r"no part of the network"),
        (["backbone", "classifier"], r"leaves nothing to train"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(names, message):
    network = build_network({"name": "fcn_resnet", "backbone": "resnet18", "width": 2})
    with pytest.raises(MedsegError, match=message):
        frozen_parameters(network, names)


def test_a_frozen_run_that_was_interrupted_is_one_that_was_not(tmp_path):
    part = first_part(SPEC)
    whole = run(tmp_path / "whole", 24, freeze=[part])[0]
    with pytest.raises(Killed):
        run(tmp_path / "torn", 24, freeze=[part], kill_at=21)
    assert equal(whole, run(tmp_path / "torn", 24, freeze=[part], resume=True)[0])


def test_a_run_is_not_resumed_with_other_parts_frozen(tmp_path):
    run(tmp_path / "run", 4)
    with pytest.raises(MedsegError, match=r"keep its training\.freeze"):
        run(tmp_path / "run", 8, freeze=[first_part(SPEC)], resume=True)
