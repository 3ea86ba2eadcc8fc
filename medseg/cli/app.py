"""The command line's frame: commands by name, and what an error looks like.

Exit codes: 0 done; 2 the user's mistake, one line on stderr that begins ``error:``; 3 some of several scans were
skipped; 4 ``medseg verify`` found a change; 1 a defect; 130 Ctrl-C. Results go to stdout, progress to stderr. Nothing
heavy is imported before a command that needs it runs.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from medseg import __version__
from medseg.cli import (
    cache,
    check,
    compare,
    data,
    evaluate,
    export,
    infer,
    networks,
    plan,
    postprocess,
    prepare,
    register,
    sync,
    train,
    ui,
    verify,
)
from medseg.errors import MedsegError, shorten

app = typer.Typer(
    help="From labelled medical images to a segmentation model for scans of any size.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("infer")(infer.infer)
app.command("verify")(verify.verify)
app.command("postprocess")(postprocess.postprocess)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("register")(register.register)
app.command("export")(export.export)
app.command("sync")(sync.sync)
app.command("ui")(ui.ui)
app.command("networks")(networks.networks)
app.command("phantom")(data.phantom)
app.command("info")(data.info)
app.command("schema")(train.schema)
app.add_typer(cache.app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"medseg {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """From labelled medical images to a segmentation model for scans of any size."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line; returns its exit code."""
    try:
        code = app(args=arguments, prog_name="medseg", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MedsegError as error:
        return _refuse(str(error))
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; what was done is kept and can be resumed", file=sys.stderr)
        return 130
    except typer.TyperException as error:
        return _refuse(_usage(error))


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _usage(error: Exception) -> str:
    """What is wrong with a command line, in one line."""
    text = " ".join(str(getattr(error, "format_message", lambda: error)()).split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "medseg"
    return shorten(f"{text.rstrip('.')}; see {command} --help")


def entry() -> None:
    """The console script.

    PyTorch is asked for huge pages, where the system grants them (Linux): fresh memory costs a forward pass in 3D up to
    a third of its time otherwise.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: names of files may hold any bytes
    sys.exit(main())
