"""Learning rates: warm-up, then the schedule; and who gets how much of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.optim import lr_scheduler

from medseg.errors import ConfigError
from medseg.training.optimizer import FACTOR, OPTIMIZERS, build_optimizer
from medseg.training.schedule import SCHEDULES, learning_rate
from medseg.training.settings import TrainingSettings


def rates(steps=100, **keys):
    settings = TrainingSettings(learning_rate=1e-3, **{"warmup_steps": 0, **keys})
    return [learning_rate(settings, s, s / steps) for s in range(steps)]


def torch_s(build, steps=100):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule, seen = build(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_schedules_are_pytorch_s():
    poly = torch_s(lambda o: lr_scheduler.PolynomialLR(o, 100, 0.9))
    cosine = torch_s(lambda o: lr_scheduler.CosineAnnealingLR(o, 100))
    step = torch_s(lambda o: lr_scheduler.MultiStepLR(o, [30, 60], 0.1))
    assert rates() == pytest.approx(poly)
    assert rates(schedule="cosine") == pytest.approx(cosine)
    assert rates(schedule="step", step_at=[0.3, 0.6]) == pytest.approx(step)
    assert set(rates(schedule="constant")) == {1e-3} == set(rates(poly_power=0))


@given(schedule=st.sampled_from(list(SCHEDULES)), warmup=st.integers(0, 20))
def test_warm_up_rises_and_what_follows_never_does(schedule, warmup):
    seen = rates(schedule=schedule, warmup_steps=warmup)
    assert 0 < max(seen) <= 1e-3
    assert all(a >= b for a, b in zip(seen[warmup + 1 :], seen[warmup + 2 :], strict=False))
    plain = rates(schedule=schedule)
    assert seen[:warmup] == pytest.approx([r * (s + 1) / (warmup + 1) for s, r in enumerate(plain[:warmup])])


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 3)), "classifier": nn.Linear(3, 1)})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_factors_reach_their_parts(name):
    net = network()
    factors = {"classifier": 10, "classifier.bias": 20}
    optimizer = build_optimizer(net, TrainingSettings(optimizer=name, rate_factors=factors))
    found = {id(p): g[FACTOR] for g in optimizer.param_groups for p in g["params"]}
    assert {n: found[id(p)] for n, p in net.named_parameters()} == {
        "backbone.0.weight": 1,
        "backbone.0.bias": 1,
        "classifier.weight": 10,
        "classifier.bias": 20,
    }
    net["backbone"].requires_grad_(False)
    assert sum(len(g["params"]) for g in build_optimizer(net, TrainingSettings(optimizer=name)).param_groups) == 2


def test_sgd_has_its_momentum_and_the_others_their_decay():
    net = network()
    sgd = build_optimizer(net, TrainingSettings(optimizer="sgd", momentum=0.99, nesterov=True, weight_decay=3e-5))
    group = sgd.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.99, True, 3e-5)
    adam, adamw = (build_optimizer(net, TrainingSettings(optimizer=name)) for name in ("adam", "adamw"))
    assert not adam.param_groups[0]["decoupled_weight_decay"]
    assert adamw.param_groups[0]["decoupled_weight_decay"]


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="'clasifier', which is no part of the network; did you mean 'classifier'"):
        build_optimizer(network(), TrainingSettings(rate_factors={"clasifier": 10}))
    with pytest.raises(ValidationError, match="needs optimizer: sgd"):
        TrainingSettings(nesterov=True)
    with pytest.raises(ValidationError, match="needs optimizer: sgd"):
        TrainingSettings(optimizer="sgd", momentum=0, nesterov=True)
    for wrong in ([0.7, 0.2], [0.5, 0.5], [1.5]):
        with pytest.raises(ValidationError, match="rising order"):
            TrainingSettings(step_at=wrong)
