"""Which networks go to ONNX, for which windows, and how far ONNX Runtime's logits are from PyTorch's.

    python benchmarks/onnx_export.py                  (all networks; writes the table of docs/export.md)
    python benchmarks/onnx_export.py unet segnet      (these alone; the others keep their rows)

The networks are those of the laws (tests/networks/narrow.py): narrow, with random weights. A row is what
``medseg.export`` itself found when it checked the file. Results go to benchmarks/results/onnx_export.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from workbench import RESULTS, account, load

from medseg import NETWORKS
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.export.onnx_file import export_onnx
from medseg.files import write_json, write_text
from medseg.package import ModelCard
from medseg.scans.preprocessing import Preprocessing

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "networks"))

from narrow import NARROW, network_of, window_of  # noqa: E402

PAGE = ROOT / "docs" / "export.md"
MARK = "<!-- What follows is written by benchmarks/onnx_export.py. -->\n"
RESULT = RESULTS / "onnx_export.json"
LABELS = Labels({"background": 0, "a": 1, "b": 2})


def row_of(name: str, dims: int, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = network_of(name, dims).eval()
    window = window_of(name, network)
    card = ModelCard(
        medseg="0",
        network=NARROW[name].spec(name, dims),
        activation="softmax",
        labels=LABELS.to_dict(),
        preprocessing=Preprocessing(),
        window=list(window),
    )
    row: dict[str, Any] = {"network": name, "dims": dims}
    try:
        done = export_onnx(network, card, folder / f"{name}{dims}.onnx")
    except MedsegError as error:
        return {**row, "refused": str(error)}
    return {
        **row,
        "sizes": done.sizes,
        "why": done.why,
        "windows": [list(one.window) for one in done.checked],
        "difference": max(one.difference / one.scale for one in done.checked),
        "differing": sum(one.differing for one in done.checked),
        "voxels": sum(one.voxels for one in done.checked),
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | axes | windows | run at | largest difference | labels that differ |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "refused" in row:
            told = f"refused: {row['refused']}", "", "", ""
        else:
            differing = f"{row['differing']} of {row['voxels']}"
            told = row["sizes"], f"{len(row['windows'])} windows", f"{row['difference']:.1e}", differing
        lines.append(f"| {row['network']} | {row['dims']} | {' | '.join(told)} |")
    notes = [f"- {row['network']} in {row['dims']}D: {row['why']}" for row in rows if row.get("why")]
    noted = ["", "Why not more sizes:", "", *notes] if notes else []
    return "\n".join([*lines, *noted]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    wanted = parser.parse_args().networks
    rows = {(row["network"], row["dims"]): row for row in load(RESULT).get("rows", [])}
    with TemporaryDirectory() as folder:
        for name in wanted:
            for dims in (2, 3):
                rows[name, dims] = row_of(name, dims, Path(folder))
                print(rows[name, dims], flush=True)
                ordered = [rows[key] for key in ((n, d) for n in NETWORKS for d in (2, 3)) if key in rows]
                write_json(RESULT, {**account(), "rows": ordered})
    head, _, _ = PAGE.read_text("utf-8").partition(MARK)
    write_text(PAGE, head + MARK + "\n" + table_of(ordered))


if __name__ == "__main__":
    main()
