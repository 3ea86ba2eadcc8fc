"""``medseg infer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.cli.case_names import CASE_NAMES, CaseNames
from medseg.cli.infer_options import (
    amp_of,
    box_of,
    budget_of,
    exclude,
    one_of,
    path_of,
    precision_of,
    settings_of,
    sizes_of,
    steps_of,
)
from medseg.cli.series import SERIES, SERIES_FILTER, chosen, listing_series
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.datasets.case_names import How
    from medseg.inference.many import Outcome
    from medseg.inference.model import Model, Options
    from medseg.tracking.applied import Origin
    from medseg.tracking.store import Store

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
    padding: Annotated[
        Optional[str], typer.Option(help="What a sliding window sees beyond a smaller scan: mirror or zeros.")
    ] = None,
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
    exclude({"--tile-overlap": tile_overlap, "--sliding-window": sliding_window, "--whole": whole})
    exclude({"--whole": whole, "--tile": tile is not None})
    exclude({"--sliding-window": sliding_window, "--tile": tile is not None}, "a sliding window's size is --roi")
    paths = [path_of(text) for text in inputs]
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
    windows["padding"] = one_of("--padding", padding, ("mirror", "zeros"))
    settings = settings_of(loaded, [mode for mode, wanted in modes.items() if wanted], windows)
    options = Options(
        settings=settings,
        window=sizes_of("--tile", tile),
        batch=batch,
        turns=one_of("--tta", tta, ("flips", "rotations")),
        budget=budget_of(loaded, memory, device_memory, workers),
        part=box_of(box),
        probabilities=precision_of(probabilities, probability_type, "uint8" if format == "dcm" else "float16"),
        overwrite=overwrite,
        amp=amp_of(amp, loaded, settings),
        postprocessing=steps_of(postprocess, instances, loaded, box is not None),
        series=choice,
        strict=strict,
    )
    names = _names(sources, loaded, case_names.value)
    jobs = _jobs(names, output, format, loaded, options)
    if dry_run:
        from medseg.cli.dry_run import dry_run as tell

        tell(jobs, loaded, options, as_json)
        return
    tracked = _tracked(loaded, options, output, store) if track or store is not None else None
    write_map(output, ((name, source) for source, name in names.items()))
    outcomes = _run(jobs, loaded, options, workers, output, as_json)
    if as_json:
        import json

        print(json.dumps(_report(outcomes), indent=2))
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    if len(skipped) == len(outcomes) == 1:
        raise MedsegError(skipped[0].why)
    if tracked is not None:
        _track(output, loaded, options, *tracked)
    if skipped:
        print(
            f"{len(skipped)} of {len(outcomes)} scans were skipped; {output / 'report.json'} says why", file=sys.stderr
        )
        raise typer.Exit(SOME_SKIPPED)


def _tracked(model: Model, options: Options, folder: Path, store: str | None) -> tuple[Store, Origin]:
    """Where the run goes, and what is known of the model; what can never be tracked is refused.

    Only for a run that is tracked is MLflow imported.
    """
    from medseg.tracking.applied import Origin, check_trackable
    from medseg.tracking.store import Store

    place, origin = Store.resolve(store), Origin.told(_account(model, options))
    check_trackable(place, origin.experiment, folder)
    return place, origin


def _track(folder: Path, model: Model, options: Options, store: Store, origin: Origin) -> None:
    """Leaves a run in MLflow."""
    from medseg.inference.audit import Start
    from medseg.tracking.applied import track_inference

    run = track_inference(folder, Start.of(model, options), origin, store)
    print(f"run: {run.id or 'waits in ' + str(folder)} in {store.shown}", file=sys.stderr)


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


def _recent_runs() -> str:
    folder = Path("runs")
    runs = [p for p in folder.iterdir() if (p / "model").is_dir()] if folder.is_dir() else []
    recent = sorted(runs, key=lambda p: -(p / "model").stat().st_mtime)[:3]
    if not recent:
        return ", a package or a run's folder (there is no finished run in runs/)"
    return ", such as " + ", ".join(f"-m {path}" for path in recent)
