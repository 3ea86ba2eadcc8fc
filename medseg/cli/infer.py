"""``medseg infer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medseg.errors import ConfigError, MedsegError, ScanError, TileError

if TYPE_CHECKING:
    from medseg.inference.infer import Model, Options, Result
    from medseg.inference.segment import Progress


def infer(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Scans, or folders of them.")],
    model: Annotated[Optional[Path], typer.Option("-m", "--model", help="A model package, or a run's folder.")] = None,
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="The folder for the masks.")] = None,
    tile_overlap: Annotated[
        bool, typer.Option("--tile-overlap", help="Overlapping tiles with a mirrored border: exact, in flat memory.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="One pass over each whole scan.")] = False,
    tile: Annotated[
        Optional[str], typer.Option(metavar="N[,N,N]", help="The window that the network sees, as the paper's 572.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tiles that go through the network together.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    format: Annotated[str, typer.Option(help="auto (like the input), nii.gz, nii, tif, png or zarr.")] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write these too, into OUT/probabilities.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Segment scans of any size; each mask lies on its scan's own grid."""
    if tile_overlap and whole:
        raise MedsegError("--tile-overlap and --whole exclude each other: give one of them")
    if whole and tile is not None:
        raise MedsegError("--tile and --whole exclude each other: one pass has no tiles")
    paths = [_path(text) for text in inputs]
    if model is None:
        raise MedsegError(f"no model is given: add -m MODEL{_recent_runs()}")
    if output is None:
        raise MedsegError("no folder for the masks is given: add -o OUT")

    from medseg.inference.outputs import find_sources, name_outputs

    sources = find_sources(paths)
    outputs = name_outputs(sources, output, format)

    from medseg.inference.device import find_device
    from medseg.inference.infer import Model, Options, check_output
    from medseg.inference.segment import check_channels
    from medseg.scans.scan import open_scan

    options = Options(_window(tile), whole, batch, probabilities, overwrite)
    loaded = Model.load(model, find_device(device))
    if tile_overlap and not loaded.network.footprint.exact:
        raise TileError(
            f"--tile-overlap needs a network whose voxels depend on a bounded window; {loaded.card.network['name']} "
            "looks at its whole window (instance or group norm): use --whole"
        )
    for source, target in zip(sources, outputs, strict=True):
        check_output(target, options)
        check_channels(open_scan(source), loaded.network)
    results = _run(list(zip(sources, outputs, strict=True)), loaded, options, output, as_json)
    if as_json:
        import json

        print(json.dumps({"scans": [result.to_dict() for result in results]}, indent=2))


def _run(jobs: list[tuple[Path, Path]], model: Model, options: Options, folder: Path, as_json: bool) -> list[Result]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from medseg.files import write_json
    from medseg.inference.infer import infer as infer_scan

    results = []
    console = Console(file=sys.stderr)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        for source, target in jobs:
            task = bar.add_task(source.name, total=None)

            def report(progress: Progress, task: object = task) -> None:
                bar.update(task, total=progress.tiles, completed=progress.done)  # type: ignore[arg-type]

            result = infer_scan(source, target, model, options, report, console.print)
            bar.remove_task(task)
            results.append(result)
            write_json(folder / "inference.json", _account(model))
            if not as_json:
                speed = result.voxels / result.seconds / 1e6
                print(f"{result.output}  {result.tiles} tiles, {result.seconds:.1f} s, {speed:.2f} Mvoxel/s")
    return results


def _account(model: Model) -> dict[str, object]:
    """What ``medseg evaluate`` needs to know of the masks in a folder, and where they came from."""
    return {
        "medseg": model.card.medseg,
        "model": model.card.weights_sha256,
        "labels": model.card.labels,
        "training": model.card.training,
    }


def _path(text: str) -> Path:
    path = Path(text)
    if not path.exists() and _is_number(text):
        option = "--batch" if text.isdigit() and int(text) < 32 else "--tile"
        meant = f"{option} {text}" if text.replace(",", "").isdigit() else "--tile N, the window in voxels"
        raise ScanError(
            f"{text} is taken for an input and is no file; --tile-overlap takes no number. Was {meant} meant?"
        )
    return path


def _is_number(text: str) -> bool:
    try:
        [float(part) for part in text.split(",")]
        return True
    except ValueError:
        return False


def _window(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"--tile {text!r} is no size: give one number, or one an axis, such as 572 or 132,132,116")
    return tuple(int(part) for part in parts)


def _recent_runs() -> str:
    folder = Path("runs")
    runs = [p for p in folder.iterdir() if (p / "model").is_dir()] if folder.is_dir() else []
    recent = sorted(runs, key=lambda p: -(p / "model").stat().st_mtime)[:3]
    if not recent:
        return ", a package or a run's folder (there is no finished run in runs/)"
    return ", such as " + ", ".join(f"-m {path}" for path in recent)
