"""Laws of the house itself: which way imports run, and what a command must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"addresses", "errors", "files", "geometry", "private", "processes", "quiet", "versions", "yaml_source"},
    {"scans", "networks"},
    {"datasets", "fold_runs", "package", "evaluation", "inference", "postprocessing"},
    {"tracking"},
    {"export", "registry"},
    {"training", "preparing"},
    {"experiment", "data_section", "data_split"},
    {"held_out", "learned_from", "open_data", "planning"},
    {"study"},
    {"cross_validation"},
    {"cli", "__main__"},
]
# What a config says about training is read by the experiment without the loop.
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("medseg."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("medseg."))


@pytest.mark.parametrize("path", sorted((ROOT / "medseg").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = path.relative_to(ROOT / "medseg").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for other in imports_of(path):
        assert HEIGHT[other] <= HEIGHT[room], f"{path} imports {other}, which stands above {room}"


def loaded_by(code):
    script = f"import sys; {code}; print(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_medseg_or_asking_for_help_loads_nothing_heavy():
    heavy = {"torch", "numpy", "monai", "lightning", "mlflow", "pydantic", "rich", "nibabel", "zarr"}
    assert not heavy & loaded_by("import medseg, medseg.cli.app")


def test_preparing_loads_no_pytorch():
    assert "torch" not in loaded_by("import medseg.open_data, medseg.preparing.run, medseg.preparing.progress")


def test_the_inference_path_loads_neither_monai_nor_lightning_nor_mlflow():
    loaded = loaded_by("import medseg.inference.infer, medseg.cli.infer, medseg.inference.outputs")
    assert "torch" in loaded
    assert not {"monai", "lightning", "mlflow", "pytorch_lightning"} & loaded


def test_the_public_names_are_there():
    import medseg

    for name in medseg.__all__:
        assert getattr(medseg, name) is not None
    with pytest.raises(AttributeError):
        medseg.nothing  # noqa: B018
