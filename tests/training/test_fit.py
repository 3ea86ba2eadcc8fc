"""Laws of the loop, in process: same seed same weights, interrupted is uninterrupted, dropout included."""

import os
import pickle
import signal

import numpy as np
import pytest
import torch

from medseg import MedsegError, build_network, open_scan
from medseg.datasets.labels import Labels
from medseg.inference.settings import InferenceSettings
from medseg.scans.preprocessing import Preprocessing
from medseg.training.augment import build_augmentation
from medseg.training.budget import Budget
from medseg.training.checkpoint import read_checkpoint
from medseg.training.fit import Listeners, fit
from medseg.training.losses import build_loss
from medseg.training.samples import SampleGeometry, TileSamples, TrainingCase
from medseg.training.settings import TrainingSettings
from medseg.training.validation import ValidationCase, Validator

LOSS = {"name": "dice_bce"}
LABELS = Labels({"background": 0, "cell": 1}, ("cell",))
SGD = {"optimizer": "sgd", "nesterov": True, "schedule": "cosine", "rate_factors": {"score": 10}}
SPEC = {"name": "unet", "width": 2, "depth": 1, "norm": "batch", "dropout": 0.5, "in_channels": 1, "out_channels": 1}


class Killed(Exception):
    pass


def data(seed):
    rng = np.random.default_rng(seed)
    label = (rng.random((1, 40, 40)) < 0.3).astype(np.uint8)
    image = (label + 0.3 * rng.standard_normal(label.shape)).astype(np.float32)
    return open_scan(image), open_scan(label)


def run(folder, steps=8, resume=False, seed=0, workers=0, kill_at=None, spec=SPEC, loss=LOSS, **changes):
    """Trains; returns the last weights, the curves heard, and the steps at which a best was found."""
    settings = TrainingSettings(max_steps=steps, validations=4, warmup_steps=2, workers=workers, **changes)
    torch.manual_seed(seed)
    network, loss = build_network(spec), build_loss(loss)
    images = [data(i) for i in range(3)]
    geometry = SampleGeometry.of(network, (28, 28))
    augmentation = build_augmentation([{"name": "flip"}, {"name": "gaussian_noise"}], 2)
    cases = [TrainingCase(str(i), *pair) for i, pair in enumerate(images)]
    samples = TileSamples(cases, LABELS, geometry, augmentation, seed, loss=loss)
    apart, cpu = [ValidationCase("v", *data(9))], torch.device("cpu")
    inference = InferenceSettings().resolved(network, list(geometry.window))
    validator = Validator(apart, LABELS, Preprocessing(), "sigmoid", inference, cpu, pictures=1)
    heard, best = [], []

    def metrics(values, step):
        heard.append((step, values))
        if kill_at is not None and step >= kill_at and "train/loss" in values:
            raise Killed

    listeners = Listeners(metrics, lambda found, step: None, lambda net, step, values: best.append(step))
    folder.mkdir(exist_ok=True)
    fitted = fit(network, loss, samples, validator, settings, folder, listeners, torch.device("cpu"), resume)
    return {k: v.clone() for k, v in network.state_dict().items()}, heard, best, fitted


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    first, *_, fitted = run(tmp_path / "a")
    assert fitted.steps == 8
    assert fitted.reason == "steps"
    assert equal(first, run(tmp_path / "b", workers=2)[0])
    assert not equal(first, run(tmp_path / "c", seed=1)[0])


@pytest.mark.parametrize(
    ("kill_at", "changes"),
    [(1, {}), (11, {}), (21, {}), (11, {**SGD, "loss": {"name": "boundary", "activation": "sigmoid"}})],
)
def test_interrupted_is_uninterrupted(tmp_path, kill_at, changes):
    """Killed before the first checkpoint, and after one; what lay between the checkpoint and the kill is done again."""
    steps = 24
    whole, heard, *_ = run(tmp_path / "whole", steps, **changes)
    with pytest.raises(Killed):
        run(tmp_path / "torn", steps, kill_at=kill_at, **changes)
    resumed, again, _, fitted = run(tmp_path / "torn", steps, resume=True, **changes)
    assert fitted.steps == steps
    assert equal(whole, resumed)
    plain = [(step, {k: v for k, v in values.items() if k != "throughput"}) for step, values in heard]
    tail = [(step, {k: v for k, v in values.items() if k != "throughput"}) for step, values in again]
    assert plain[-len(tail) :] == tail
    lines = [line.split(",")[0] for line in (tmp_path / "torn" / "metrics.csv").read_text().splitlines()]
    assert lines == [line.split(",")[0] for line in (tmp_path / "whole" / "metrics.csv").read_text().splitlines()]


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    whole, *_ = run(tmp_path / "a")
    again, _, _, fitted = run(tmp_path / "a", resume=True)
    assert fitted.steps == 8
    assert equal(whole, again)


def test_patience_ends_a_run(tmp_path):
    still = {**SPEC, "norm": "none"}  # without statistics that move on their own
    *_, fitted = run(tmp_path / "a", steps=40, learning_rate=1e-12, patience=1, spec=still)
    assert fitted.reason == "no better"
    assert fitted.steps < 40


def test_a_padded_network_trains_on_plain_windows(tmp_path):
    _, heard, _, fitted = run(tmp_path / "a", spec={**SPEC, "padding": "same"})
    assert fitted.steps == 8
    assert all(np.isfinite(v) for _, values in heard for v in values.values())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_foreign_pickle_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    network = build_network(SPEC)
    for name, content in {"foreign": pickle.dumps(Evil()), "noise": b"\x80\x04nonsense", "empty": b""}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MedsegError, match=name):
            read_checkpoint(path, network)
    torch.save({"x": Evil()}, tmp_path / "zip")
    with pytest.raises(MedsegError, match="was not loaded"):
        read_checkpoint(tmp_path / "zip", network)
    assert not (tmp_path / "touched").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path / "a")
    with pytest.raises(MedsegError, match="another network"):
        read_checkpoint(tmp_path / "a" / "last.ckpt", build_network({**SPEC, "width": 4}))
    torch.save({"state_dict": {}}, tmp_path / "b")
    with pytest.raises(MedsegError, match="no checkpoint of medseg"):
        read_checkpoint(tmp_path / "b", build_network(SPEC))
    whole = (tmp_path / "a" / "last.ckpt").read_bytes()
    (tmp_path / "c").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MedsegError, match="damaged"):
        read_checkpoint(tmp_path / "c", build_network(SPEC))


def test_the_budget_ends_with_whichever_is_first():
    steps = Budget(10, None)
    assert [steps.progress(s) for s in (0, 5, 10, 12)] == [0, 0.5, 1, 1]
    assert not steps.over(9)
    assert steps.over(10)
    spent = Budget(10, 1.0, spent=61.0)
    assert spent.over(0)
    assert Budget(None, 2.0, spent=60.0).progress(10**6) == pytest.approx(0.5, abs=0.01)


def test_weights_that_are_no_numbers_end_a_training(tmp_path):
    """A rate far too high: nothing that is not a number is validated, kept or checkpointed."""
    wild = {"learning_rate": 1e38, "gradient_clip": None, "optimizer": "sgd"}
    with pytest.raises(MedsegError, match=r"no finite numbers .*learning_rate=1e\+38, or set training.gradient_clip"):
        run(tmp_path / "a", steps=24, **wild)
    saved = tmp_path / "a" / "last.ckpt"
    assert not saved.exists() or all(x.isfinite().all() for x in torch.load(saved)["state_dict"].values())


def test_a_killed_reader_ends_a_training_with_a_sentence(tmp_path, monkeypatch):
    here = os.getpid()
    plain = TileSamples.__getitem__

    def fatal(self, index):
        if os.getpid() != here and index > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, index)

    monkeypatch.setattr(TileSamples, "__getitem__", fatal)
    with pytest.raises(MedsegError, match=r"reads samples came to an end .*lower training.cache_mib"):
        run(tmp_path / "a", workers=1)
