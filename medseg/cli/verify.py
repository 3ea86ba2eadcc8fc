"""``medseg verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.errors import MedsegError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medseg.inference.verify import Verdict, Verification

CHANGED = 4
"""The exit code where a scan, a model or a mask is not as it was."""


def verify(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="A report.json of medseg infer, or its folder.")],
    root: Annotated[Optional[Path], typer.Option(help="The folder that the scans were moved to.")] = None,
    model: Annotated[
        Optional[list[Path]], typer.Option("-m", "--model", help="The package, where it was moved.")
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="A folder for the new masks; not kept by default.")
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="auto, cpu, cuda, cuda:N or mps; default: as it was.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Do again what a report of medseg infer says, and tell what has changed: exit 0 nothing, 4 something."""
    import tempfile
    from contextlib import ExitStack

    from medseg.inference.verify import Verification

    if not report.exists():
        raise MedsegError(f"{report} does not exist: give the report.json that medseg infer wrote, or its folder")
    if root is not None and not root.is_dir():
        raise MedsegError(f"--root {root} is no folder")
    if output is not None and output.exists() and (output.is_file() or any(output.iterdir())):
        raise MedsegError(f"{output} is not empty: give a new folder for the masks with -o")
    asked = Verification.open(report, root, model or [])
    with ExitStack() as stack:
        scratch = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medseg-verify-")))
        verdicts = []
        for verdict in _verdicts(asked, scratch, device, as_json):
            verdicts.append(verdict)
            if not as_json:
                print("\n".join(_lines(verdict)))
    same = sum(verdict.same for verdict in verdicts)
    if as_json:
        import json

        print(json.dumps({"same": same == len(verdicts), "scans": [_row(verdict) for verdict in verdicts]}, indent=2))
    else:
        print(f"{same} of {len(verdicts)} scans are as they were")
    if same < len(verdicts):
        raise typer.Exit(CHANGED)


def _verdicts(asked: Verification, scratch: Path, device: str | None, as_json: bool) -> Iterator[Verdict]:
    """Start by start, since each may have had another package or device."""
    from medseg.cli.progress import InferenceBar
    from medseg.inference.device import find_device
    from medseg.inference.ensemble import load_models
    from medseg.inference.process_memory import tame_heap
    from medseg.inference.verify import Verdict

    tame_heap()
    for id, packages in asked.packages.items():
        rows = [row for row in asked.rows if row.start == id]
        there = asked.report.starts[id].device
        try:
            model = load_models(packages, find_device(device or there))
        except MedsegError as error:
            hint = "" if device is not None else "; --device cpu does it again on the CPU" * ("not here" in str(error))
            raise MedsegError(f"{error}{hint}") from None
        for change in asked.changes(id, model):
            print(f"since then: {change}", file=sys.stderr)
        with InferenceBar() as bar:
            for number, row in enumerate(rows):
                try:
                    yield asked.verify(row, model, scratch / id / str(number), bar.say)
                except MedsegError as error:
                    yield Verdict(row.input, row.output, False, (str(error),))


def _lines(verdict: Verdict) -> Iterator[str]:
    """One scan's result, a line for each label where masks differ."""
    yield f"{verdict.output}  {'the same' if verdict.same else '; '.join(verdict.changed)}"
    found = verdict.difference
    if found is not None:
        yield f"    {found.voxels:,} of {found.of:,} voxels differ"
        for name, label in found.labels.items():
            yield f"    {name}: Dice {label.dice:.6g}, {label.before:.6g} -> {label.after:.6g} {label.unit}"


def _row(verdict: Verdict) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(verdict), "digest": None if verdict.digest is None else verdict.digest.model_dump()}
