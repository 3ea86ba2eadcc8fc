"""``medseg infer --dry-run``: what would be done, held and written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import MedsegError
from medseg.private import public

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from medseg.inference.infer import Job
    from medseg.inference.model import Model, Options


def dry_run(jobs: list[tuple[Path, Path]], model: Model, options: Options, as_json: bool) -> None:
    """Plans every scan from its header and tells of it; nothing is read and nothing is written.

    Raises:
        PackageError: where strictness is asked for and the package does not tell of its training images.
    """
    from medseg.inference.many import check_strict

    check_strict(model, options)
    rows = [_row(path, output, model, options) for path, output in jobs]
    if as_json:
        print(json.dumps({"scans": rows}, indent=2))
        return
    for row in rows:
        print("\n".join(_lines(row)))


def _row(path: Path, output: Path, model: Model, options: Options) -> dict[str, Any]:
    from medseg.inference.gate import told
    from medseg.inference.infer import Job
    from medseg.inference.source import Source

    try:
        source = Source.glance(path, model, options.series)
        remarks = source.remarks(model.card)
        found = {"input": public(path), "output": str(output), "remarks": [one.to_dict() for one in remarks]}
        if remarks and options.strict:
            return {**found, "why": f"it is {told(remarks)}; without --strict it is segmented"}
        return {**found, **_planned(Job(source, output, model, options))}
    except MedsegError as error:
        return {"input": public(path), "output": str(output), "why": str(error)}


def _planned(job: Job) -> dict[str, Any]:
    from medseg.inference.budget import Budget
    from medseg.inference.infer import probabilities_path
    from medseg.scans.scan import mask_bytes
    from medseg.scans.sink import free_bytes

    plan, source = job.plan, job.source
    own = job.model.labels.dtype
    kinds: list[tuple[Path, DTypeLike, int | None]] = [(job.output, job.chain.dtype(own), None)]
    if job.options.probabilities is not None:
        kinds.append((probabilities_path(job.output), job.options.probabilities, job.model.channels))
    chunks = job.chunks(plan)
    beside = 0 if job.mask == job.output else mask_bytes(job.mask, job.like, own, None, chunks)
    budget = job.options.budget or Budget.of_machine(job.model.device)
    return {
        "shape": list(source.scan.shape),
        "dtype": str(source.scan.dtype),
        "mode": job.settings.mode,
        "plan": plan.to_dict(),
        "work": plan.tiles * math.prod(plan.window) / math.prod(source.view.shape),
        "host_budget_bytes": budget.host_bytes,
        "device_budget_bytes": budget.device_bytes,
        "expected_seconds": job.expected_seconds(plan),
        "statistics_pass": job.model.card.preprocessing.normalize.kind == "zscore",
        "output_bytes": sum(job.bytes_of(dtype, channels) for _, dtype, channels in kinds),
        "disk_needed_bytes": beside + sum(mask_bytes(p, job.like, d, c, chunks) for p, d, c in kinds),
        "disk_free_bytes": free_bytes(job.output),
    }


def _lines(row: dict[str, Any]) -> list[str]:
    from medseg.inference.budget import format_size
    from medseg.inference.gate import UNLIKE

    if "why" in row:
        return [f"{row['input']}: skipped: {row['why']}"]
    plan = row["plan"]
    unit = "windows" if row["mode"] == "sliding-window" else "tiles"
    core, window = (" x ".join(map(str, plan[key])) for key in ("core", "window"))
    held = f"{format_size(plan['host_bytes'])} of the host's {format_size(row['host_budget_bytes'])}"
    if row["device_budget_bytes"] is not None:
        held += f", {format_size(plan['device_bytes'])} of the device's {format_size(row['device_budget_bytes'])}"
    room = "enough" if row["disk_needed_bytes"] <= row["disk_free_bytes"] else "may not be enough"
    seconds = row["expected_seconds"]
    took = "" if not row["statistics_pass"] else ", and one pass through the scan for its mean and SD"
    shape = " x ".join(map(str, row["shape"]))
    return [
        f"{row['input']}: {shape} {row['dtype']} -> {row['output']}",
        *([f"  {UNLIKE}: {'; '.join(remark['what'] for remark in row['remarks'])}"] if row["remarks"] else []),
        f"  {row['mode']}: {plan['tiles']} {unit} {core} apart, window {window}, batch {plan['batch']}; "
        f"{row['work']:.1f} times the work of one pass",
        f"  memory: {held}" + ("" if plan["fits"] else ": DOES NOT FIT"),
        f"  time: {'not known' if seconds is None else _duration(seconds)}{took}",
        f"  output: {format_size(row['output_bytes'])} uncompressed, at most {format_size(row['disk_needed_bytes'])} "
        f"of disk while it is written; {format_size(row['disk_free_bytes'])} are free: {room}",
    ]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
