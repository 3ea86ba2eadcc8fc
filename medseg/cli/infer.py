"""``medseg infer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.cli.case_names import CASE_NAMES, CaseNames
from medseg.cli.series import SERIES, SERIES_FILTER, chosen, listing_series
from medseg.errors import ConfigError, MedsegError, ScanError, nearest

if TYPE_CHECKING:
    from medseg.datasets.case_names import How
    from medseg.geometry import Box
    from medseg.inference.many import Outcome
    from medseg.inference.model import Model, Options
    from medseg.inference.settings import InferenceSettings
    from medseg.postprocessing.settings import Step

SOME_SKIPPED = 3
"""The exit code where some scans were segmented and others could not be."""


def infer(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Scans, or folders of them.")],
    model: Annotated[
        Optional[list[Path]],
        typer.Option(
            "-m",
            "--model",
            help="A package, a run's folder or models:/NAME@ALIAS. Of several, the mean of their probabilities counts.",
        ),
    ] = None,
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="The folder for the masks.")] = None,
    tile_overlap: Annotated[
        bool, typer.Option("--tile-overlap", help="Overlapping tiles with a mirrored border: exact, in flat memory.")
    ] = False,
    sliding_window: Annotated[
        bool, typer.Option("--sliding-window", help="Overlapping windows, averaged as MONAI does.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="One pass over each whole scan.")] = False,
    tile: Annotated[
        Optional[str], typer.Option(metavar="N[,N,N]", help="The window that the network sees, as the paper's 572.")
    ] = None,
    roi: Annotated[Optional[str], typer.Option(metavar="N[,N,N]", help="The sliding window.")] = None,
    overlap: Annotated[Optional[float], typer.Option(help="Of sliding windows, 0 to below 1.")] = None,
    blend: Annotated[Optional[str], typer.Option(help="Of sliding windows: gaussian or constant.")] = None,
    sigma_scale: Annotated[Optional[float], typer.Option(help="The Gaussian's sigma, as a part of the window.")] = None,
    tta: Annotated[
        Optional[str], typer.Option(help="Average over flips, or over rotations (flips and quarter turns).")
    ] = None,
    batch: Annotated[Optional[int], typer.Option(min=1, help="Windows that go through the network together.")] = None,
    memory: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="What may be held, such as 2GiB; default: 60 % of what is free."),
    ] = None,
    device_memory: Annotated[Optional[str], typer.Option(metavar="SIZE", help="The same on a GPU.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share each scan.")] = 1,
    threads: Annotated[Optional[int], typer.Option(min=1, help="Of the network on the CPU, for each worker.")] = None,
    box: Annotated[
        Optional[str], typer.Option(metavar="A:B,A:B[,A:B]", help="Only this part of each scan, in its own voxels.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    amp: Annotated[
        Optional[bool], typer.Option("--amp/--no-amp", help="Half precision; default: for sliding windows on a GPU.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="auto (like the input), nii.gz, nii, tif, png, zarr, or dcm (DICOM SEG).")
    ] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write these too, into OUT/probabilities.")
    ] = False,
    probability_type: Annotated[
        Optional[str], typer.Option(help="uint8, float16 or float32; default: float16, of DICOM SEG uint8.")
    ] = None,
    postprocess: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE.yaml|none",
            help="What is done to each mask after the network, instead of the model's own steps.",
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Number the objects of each mask at last, as uint32.")
    ] = False,
    series: Annotated[Optional[str], typer.Option(metavar="UID", help=SERIES)] = None,
    series_filter: Annotated[Optional[str], typer.Option(metavar="'KEY=VALUE, ...'", help=SERIES_FILTER)] = None,
    case_names: Annotated[CaseNames, typer.Option(help=CASE_NAMES)] = CaseNames.stem,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse scans that are unlike the training images.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, held and written; read no voxel.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that exist.")] = False,
    track: Annotated[bool, typer.Option("--track", help="Leave a run in MLflow, linked to the model's.")] = False,
    store: Annotated[Optional[str], typer.Option(help="MLflow's store for it; else the default one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Segment scans of any size; each mask lies on its scan's own grid."""
    _exclude({"--tile-overlap": tile_overlap, "--sliding-window": sliding_window, "--whole": whole})
    _exclude({"--whole": whole, "--tile": tile is not None})
    _exclude({"--sliding-window": sliding_window, "--tile": tile is not None}, "a sliding window's size is --roi")
    paths = [_path(text) for text in inputs]
    if not model:
        raise MedsegError(f"no model is given: add -m MODEL{_recent_runs()}")
    if output is None:
        raise MedsegError("no folder for the masks is given: add -o OUT")

    from medseg.datasets.case_names import write_map
    from medseg.fold_runs import models_of
    from medseg.inference.outputs import find_sources

    choice = chosen(series, series_filter)
    sources = find_sources(paths)

    from medseg.inference.device import find_device, use_threads
    from medseg.inference.ensemble import load_models
    from medseg.inference.model import Options
    from medseg.inference.process_memory import tame_heap

    tame_heap()
    use_threads(threads, workers)
    loaded = load_models(models_of(model), find_device(device))
    modes = {"tile-overlap": tile_overlap or tile is not None, "whole": whole, "sliding-window": sliding_window}
    windows = {"roi": sizes_of("--roi", roi), "overlap": overlap, "blend": blend, "sigma_scale": sigma_scale}
    settings = _settings(loaded, [mode for mode, wanted in modes.items() if wanted], windows)
    options = Options(
        settings=settings,
        window=sizes_of("--tile", tile),
        batch=batch,
        turns=_one_of("--tta", tta, ("flips", "rotations")),
        budget=_budget(loaded, memory, device_memory, workers),
        part=_box(box),
        probabilities=_precision(probabilities, probability_type, "uint8" if format == "dcm" else "float16"),
        overwrite=overwrite,
        amp=_amp(amp, loaded, settings),
        postprocessing=_steps(postprocess, instances, loaded, box is not None),
        series=choice,
        strict=strict,
    )
    names = _names(sources, loaded, case_names.value)
    jobs = _jobs(names, output, format, loaded, options)
    if dry_run:
        from medseg.cli.dry_run import dry_run as tell

        tell(jobs, loaded, options, as_json)
        return
    write_map(output, ((name, source) for source, name in names.items()))
    outcomes = _run(jobs, loaded, options, workers, output, as_json)
    if as_json:
        import json

        print(json.dumps(_report(outcomes), indent=2))
    if track or store is not None:
        _track(output, store)
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    if len(skipped) == len(outcomes) == 1:
        raise MedsegError(skipped[0].why)
    if skipped:
        print(
            f"{len(skipped)} of {len(outcomes)} scans were skipped; {output / 'report.json'} says why", file=sys.stderr
        )
        raise typer.Exit(SOME_SKIPPED)


def _track(folder: Path, store: str | None) -> None:
    """Leaves a run in MLflow; only here is MLflow imported."""
    from medseg.tracking.applied import track_inference
    from medseg.tracking.store import Store

    place = Store.resolve(store)
    run = track_inference(folder, place)
    print(f"run: {run.id or 'waits in ' + str(folder)} in {place.shown}", file=sys.stderr)


def _names(sources: list[Path], model: Model, how: How) -> dict[Path, str]:
    """What each scan is called, given its first file."""
    from medseg.datasets.case_names import source_names
    from medseg.inference.outputs import source_stem
    from medseg.private import conceal

    channels = model.card.channel_files
    if channels is None:
        return dict(zip(sources, source_names(sources, list(map(source_stem, sources)), how), strict=True))
    firsts = channels.firsts(sources)
    stems = list(map(channels.case_of, firsts))
    names = dict(zip(firsts, source_names(firsts, stems, how), strict=True))
    for (first, name), stem in zip(names.items(), stems, strict=True):
        for file in channels.files(first) if name != stem else ():
            conceal(file, name)
    return names


def _jobs(names: dict[Path, str], folder: Path, format: str, model: Model, options: Options) -> list[tuple[Path, Path]]:
    """Each scan and its mask's name; that of a part says which. What is wrong with a single scan is said at once."""
    from medseg.inference.infer import check_output
    from medseg.inference.journal import journal_of
    from medseg.inference.model import chain_of
    from medseg.inference.outputs import name_outputs, outgrown
    from medseg.inference.source import Source
    from medseg.private import public
    from medseg.scans.dicom_seg_sink import series_of
    from medseg.scans.scan import suffix_of

    label_bytes = chain_of(model, options).dtype(model.labels.dtype).itemsize
    sources = list(names)
    outputs = name_outputs(sources, folder, format, label_bytes, name_of=names.__getitem__)
    for source, target in zip(sources, outputs, strict=True):
        if outgrown(source, target, format):
            print(
                f"note: {public(source)} is large: its mask goes to {target}, which can be written in pieces",
                file=sys.stderr,
            )
    if options.part is not None:
        sides = "_".join(f"{a}-{b}" for a, b in zip(options.part.start, options.part.stop, strict=True))
        stems = [target.name[: -len(suffix_of(target))] for target in outputs]
        outputs = [t.with_name(f"{stem}_box_{sides}{suffix_of(t)}") for t, stem in zip(outputs, stems, strict=True)]
    if len(sources) == 1:
        with listing_series():
            glanced = Source.glance(sources[0], model, options.series)
        if format == "dcm":
            series_of(glanced.scan, outputs[0])
        if not journal_of(outputs[0]).exists():  # else it may have got its name just before a kill
            check_output(outputs[0], options)
    return list(zip(sources, outputs, strict=True))


def _run(
    jobs: list[tuple[Path, Path]], model: Model, options: Options, workers: int, folder: Path, as_json: bool
) -> list[Outcome]:
    from contextlib import ExitStack

    from medseg.cli.progress import InferenceBar
    from medseg.files import write_json
    from medseg.inference.many import work_off

    outcomes = []
    with ExitStack() as stack:
        bar = stack.enter_context(InferenceBar())
        loop = None
        if workers > 1:
            from medseg.inference.workers import Workers

            loop = stack.enter_context(Workers(workers, model))
        for outcome in work_off(jobs, folder, model, options, loop, bar.show, bar.say):
            outcomes.append(outcome)
            if outcome.status != "skipped":
                write_json(folder / "inference.json", _account(model, options))
            bar.done(outcome.input)
            _tell(outcome, as_json, len(jobs))
    return outcomes


def _tell(outcome: Outcome, as_json: bool, of: int) -> None:
    result = outcome.result
    if outcome.status == "skipped":
        if of > 1:
            print(f"skipped: {outcome.why}", file=sys.stderr)
    elif not as_json and result is not None:
        speed = result.voxels / result.seconds / 1e6
        tiles = f"{result.progress.tiles} {'windows' if result.mode == 'sliding-window' else 'tiles'}"
        print(f"{outcome.output}  {tiles}, {result.seconds:.1f} s, {speed:.2f} Mvoxel/s")
    elif not as_json:
        print(f"{outcome.output}  done before")


def _report(outcomes: list[Outcome]) -> dict[str, Any]:
    from medseg.inference.process_memory import peak_bytes
    from medseg.private import public

    rows = []
    for outcome in outcomes:
        about: dict[str, Any] = {
            "input": public(outcome.input),
            "output": str(outcome.output),
            "status": outcome.status,
        }
        if outcome.status == "skipped":
            about["why"] = outcome.why
        if outcome.result is not None:
            about |= {**outcome.result.to_dict(), "peak_memory_bytes": peak_bytes()}
        if outcome.remarks:
            about["remarks"] = [remark.to_dict() for remark in outcome.remarks]
        rows.append(about)
    return {"scans": rows}


def _account(model: Model, options: Options) -> dict[str, object]:
    """What ``medseg evaluate`` needs to know of the masks in a folder, and where they came from."""
    from medseg.inference.model import chain_of

    chain = chain_of(model, options)
    return {
        "medseg": model.card.medseg,
        "model": model.card.weights_sha256,
        "models": list(model.digests),
        "labels": (chain.written or model.labels).to_dict(),
        "training": model.card.training,
        "postprocessing": chain.to_list(),
    }


def _steps(text: str | None, instances: bool, model: Model, part: bool) -> tuple[Step, ...] | None:
    """What the command line says is done after the network; None leaves it to the package."""
    from medseg.postprocessing.settings import Instances, read_steps

    own = tuple(model.card.postprocessing)
    if text is None and part and own:
        names = ", ".join(step.name for step in own)
        print(f"note: the model's {names} are left out for a part of a scan: --postprocess does some", file=sys.stderr)
    if text is None and not instances:
        return None
    steps = (() if part else own) if text is None else () if text == "none" else read_steps(Path(text))
    if instances and not any(isinstance(step, Instances) for step in steps):
        steps = (*steps, Instances())
    return steps


def _settings(model: Model, modes: list[str], windows: dict[str, Any]) -> InferenceSettings:
    """The package's way through a scan with what the command line says laid over it, resolved."""
    from pydantic import ValidationError

    given = {key: value for key, value in windows.items() if value is not None}
    if given and modes not in ([], ["sliding-window"]):
        raise MedsegError(f"--{next(iter(given)).replace('_', '-')} is for --sliding-window, not for --{modes[0]}")
    if given:
        modes = ["sliding-window"]
    own = model.card.inference
    try:
        wanted = own.model_validate({**own.model_dump(), **({"mode": modes[0]} if modes else {}), **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{option} {first['input']}: {first['msg']}") from None
    return wanted.resolved(model.network, model.card.window)


def _budget(model: Model, memory: str | None, device_memory: str | None, workers: int) -> Any:
    from medseg.inference.budget import Budget, parse_size

    if device_memory is not None and model.device.type != "cuda":
        raise ConfigError(f"--device-memory needs a CUDA device; this run is on {model.device.type}: give --memory")
    host, device = (None if text is None else parse_size(text) for text in (memory, device_memory))
    return Budget.of_machine(model.device, host, device).shared(workers)


def _precision(wanted: bool, text: str | None, default: str) -> Any:
    """What probabilities are stored as; None where they are not wanted."""
    if text is not None and not wanted:
        raise MedsegError(f"--probability-type {text} is for --probabilities: give both, or neither")
    return _one_of("--probability-type", text or default, ("uint8", "float16", "float32")) if wanted else None


def _amp(wanted: bool | None, model: Model, settings: InferenceSettings) -> bool:
    """Half precision, where the device has it: the default of sliding windows alone, since tiles are exact."""
    if model.device.type != "cuda":
        if wanted:
            raise ConfigError(f"--amp needs a CUDA device; this run is on {model.device.type}")
        return False
    return settings.mode == "sliding-window" if wanted is None else wanted


def _exclude(given: dict[str, bool], hint: str = "give one of them") -> None:
    both = [name for name, is_given in given.items() if is_given]
    if len(both) > 1:
        raise MedsegError(f"{' and '.join(both)} exclude each other: {hint}")


def _one_of(option: str, text: str | None, allowed: tuple[str, ...]) -> Any:
    if text is not None and text not in allowed:
        raise ConfigError(f"{option} {text!r} is none of {', '.join(allowed)}{nearest(text, allowed)}")
    return text


def _path(text: str) -> Path:
    path = Path(text)
    if not path.exists() and _is_number(text):
        option = "--batch" if text.isdigit() and int(text) < 32 else "--tile"
        meant = f"{option} {text}" if text.replace(",", "").isdigit() else "--overlap, or --tile N in voxels,"
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


def sizes_of(option: str, text: str | None) -> tuple[int, ...] | None:
    """The numbers of an option, one or one an axis; None where it is not given.

    Raises:
        ConfigError: for another text.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"{option} {text!r} is no size: give one number, or one an axis, such as 572 or 132,132,116")
    return tuple(int(part) for part in parts)


def _box(text: str | None) -> Box | None:
    if text is None:
        return None
    from medseg.geometry import Box

    sides = [part.split(":") for part in text.split(",")]
    whole = all(len(side) == 2 and all(end.strip().isdigit() for end in side) for side in sides)
    if not whole or not 2 <= len(sides) <= 3 or any(int(a) >= int(b) for a, b in sides):
        raise ConfigError(f"--box {text!r} is no box: give first:last+1 of each axis, such as 0:64,100:200,100:200")
    return Box(tuple(int(a) for a, _ in sides), tuple(int(b) for _, b in sides))


def _recent_runs() -> str:
    folder = Path("runs")
    runs = [p for p in folder.iterdir() if (p / "model").is_dir()] if folder.is_dir() else []
    recent = sorted(runs, key=lambda p: -(p / "model").stat().st_mtime)[:3]
    if not recent:
        return ", a package or a run's folder (there is no finished run in runs/)"
    return ", such as " + ", ".join(f"-m {path}" for path in recent)
