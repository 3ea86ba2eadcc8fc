"""docs/networks.md says what is so: it is what the script makes of the networks, and agrees with what is published."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from medseg import build_network
from medseg.cli.app import main as medseg
from medseg.networks import NETWORKS

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import networks_table  # noqa: E402
from networks_rows import FAMILIES, Published, Row  # noqa: E402

ROWS = [row for family in FAMILIES for row in family.rows]


def count(spec):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(spec).parameters())


def field_of(*layers):
    """The classic recursion over (kernel, stride, dilation): r grows by (k - 1)·d·jump, the jump by the stride."""
    field, jump = 1, 1
    for kernel, stride, dilation in layers:
        field += (kernel - 1) * dilation * jump
        jump *= stride
    return field


VGG16 = [layer for convolutions in (2, 2, 3, 3, 3) for layer in [(3, 1, 1)] * convolutions + [(2, 2, 1)]]


def dilated_resnet(third):
    """Stride in the 3x3 convolution, stages 4 and 5 dilated by 2 and 4, each but for its first unit."""
    stem = [(7, 2, 1), (3, 2, 1)]
    stages = [(3, 1, 1)] * 3 + [(3, 2, 1)] + [(3, 1, 1)] * 3
    return [*stem, *stages, (3, 1, 1), *[(3, 1, 2)] * (third - 1), (3, 1, 2), (3, 1, 4), (3, 1, 4)]


def test_the_page_is_what_the_script_makes():
    page = networks_table.PAGE.read_text()
    assert page.partition(networks_table.MARK)[2] == networks_table.generated(), "run python docs/networks_table.py"


def test_every_network_has_a_row_and_every_row_builds_a_network_of_its_name():
    assert {row.spec["name"] for row in ROWS} == set(NETWORKS)


@pytest.fixture(scope="module")
def counts():
    """Parameters, row by row."""
    return [count(row.spec) for row in ROWS]


def test_parameters_on_the_page_are_those_of_the_networks(counts):
    page = networks_table.PAGE.read_text().partition(networks_table.MARK)[2]
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [int(cells[2].replace(" ", "")) for cells in lines] == counts
    assert [re.match(r"\| `(\w+)`", cells[0]).group(1) for cells in lines] == [row.spec["name"] for row in ROWS]


def test_a_published_count_is_met_in_all_its_digits_or_the_reason_is_given(counts):
    for row, counted in zip(ROWS, counts, strict=True):
        if row.published is None:
            continue
        digits, unit = re.fullmatch(r"([\d .]+?)( M)?", row.published.figure).groups()
        digits, scale = digits.replace(" ", ""), 1_000_000 if unit else 1
        counted += sum(more for _, more in row.published.beside)
        if row.published.why:
            assert abs(counted / (float(digits) * scale) - 1) < 0.01, row
        else:
            half = scale * 10.0 ** -len(digits.partition(".")[2]) / 2 if unit else 0
            assert abs(counted - float(digits) * scale) <= half, row


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ({"name": "segnet"}, VGG16),
        ({"name": "fcn32s"}, [*VGG16, (7, 1, 1)]),
        ({"name": "segnet_basic"}, [(7, 1, 1), (2, 2, 1)] * 4),
        ({"name": "unet"}, [(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 4 + [(3, 1, 1)] * 2),
        ({"name": "fcn_resnet", "backbone": "resnet50"}, [*dilated_resnet(6), (3, 1, 1)]),
        ({"name": "fcn_resnet", "backbone": "resnet101"}, [*dilated_resnet(23), (3, 1, 1)]),
    ],
    ids=["segnet", "fcn32s", "segnet_basic", "unet", "fcn_resnet50", "fcn_resnet101"],
)
def test_the_coarsest_field_is_that_of_the_papers_layers(spec, layers):
    assert networks_table.facts(Row(spec)).coarsest == field_of(*layers)


def test_fields_that_papers_print():
    assert networks_table.facts(Row({"name": "fcn8s"})).coarsest == 404
    assert networks_table.facts(Row({"name": "segnet_basic"})).coarsest == 106


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "unet", "width": 1, "padding": "same"},
        {"name": "fcn32s", "width": 1, "padding": "same"},
        {"name": "segnet", "width": 1},
        {"name": "deeplab_v2", "width": 4, "backbone": "resnet50", "align_corners": False},
        {"name": "deeplab_v3", "width": 4, "backbone": "resnet50", "image_pooling": False},
        {"name": "deeplab_v3plus", "width": 4, "backbone": "mobilenet_v2", "image_pooling": False},
        {"name": "dynunet", "width": 2, "norm": "batch"},
    ],
    ids=lambda spec: spec["name"],
)
def test_the_output_stride_is_that_of_the_coarsest_map(spec):
    sizes = []
    network = build_network(spec).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(
                lambda module, taken, given: sizes.append((given[0] if isinstance(given, tuple) else given).shape[-1])
            )
    with torch.inference_mode():
        network(torch.zeros(1, network.in_channels, 96, 96))
    assert 96 // min(sizes) == networks_table.facts(Row(spec)).output_stride


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", networks_table.PAGE.read_text())
    assert links
    for link in links:
        assert (DOCS / link).exists(), link


def test_a_page_without_its_mark_is_left_alone(tmp_path, monkeypatch):
    page = tmp_path / "networks.md"
    page.write_text("mine\n")
    monkeypatch.setattr(networks_table, "PAGE", page)
    with pytest.raises(SystemExit, match="has no line"):
        networks_table.main()
    assert page.read_text() == "mine\n"


def test_what_is_counted_otherwise_is_told_in_a_note():
    row = Row({"name": "unet"}, Published("31.1 M", "a table", beside=(("what they have more", 69_342),)))
    family = FAMILIES[0].__class__("Title", "Source.", (row,), ("None.",))
    text = networks_table.section(family)
    assert "31.1 M, a table [1]" in text
    assert "[1] 31.1 M = ours + 69 342 (what they have more)." in text


class Largest(TorchDispatchMode):
    """The most bytes that one operation gave memory for."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor) and not one.is_meta:
                Largest.bytes = max(Largest.bytes, one.nbytes)
        return out


def test_listing_the_networks_allocates_none(capsys):
    Largest.bytes = 0
    with Largest():
        assert torch.zeros(10).nbytes == Largest.bytes
        medseg(["networks"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in NETWORKS)
    assert Largest.bytes < 100_000
