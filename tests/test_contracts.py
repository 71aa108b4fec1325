"""What holds for every file of the repository, and what the wheel must bring."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "braindecode_pipe"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
MAX_LINES = 430
TEXT = (".py", ".md", ".toml", ".txt", ".j2", ".css", ".cfg", ".yml", "")


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def imports(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    """Every module that is imported, anywhere in a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node, node.module or ""))
    return found


def test_there_is_something_to_look_at():
    assert len(MODULES) > 80
    assert any(name == "zarr" for _, name in imports(TREES[PACKAGE / "store" / "write.py"])) or any(
        name.split(".")[0] == "zarr"
        for path in (PACKAGE / "store").glob("*.py")
        for _, name in imports(TREES[path])
    )


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("zarr", {"store"}),
        (
            "torch",
            {
                "networks",
                "fitting",
                "tokenize",
                "train",
                "embed",
                "reconstruct",
                "executor.py",
                "inspect",
            },
        ),
        ("diffusers", {"reconstruct"}),
        ("mne", {"formats", "plan", "preprocess", "simulate", "report", "fetch.py", "inspect"}),
        ("mne_bids", {"plan", "preprocess", "simulate", "fetch.py", "inspect"}),
        ("nilearn", {"plan", "preprocess", "simulate", "report", "fetch.py", "inspect"}),
        ("nibabel", {"plan", "preprocess", "simulate", "report", "fetch.py", "inspect"}),
        ("matplotlib", {"report"}),
        ("distributed", {"executor.py"}),
    ],
)
def test_heavy_libraries_live_in_their_rooms(library, rooms):
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        for node, name in imports(tree)
        if name.split(".")[0] == library and path.relative_to(PACKAGE).parts[0] not in rooms
    ]
    assert wrong == []


def test_no_assert_no_stub_and_no_bare_value_error():
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            raised = node.exc if isinstance(node, ast.Raise) else None
            called = raised.func if isinstance(raised, ast.Call) else raised
            if isinstance(node, ast.Assert):
                wrong.append(f"assert at {where(path, node)}")
            elif isinstance(called, ast.Name) and called.id in ("NotImplementedError", "Exception"):
                wrong.append(f"{called.id} at {where(path, node)}")
    assert wrong == []


def test_nothing_is_forked():
    """Workers are spawned: forking a process with threads (BLAS, torch) can hang it."""
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", "")
            if name in ("fork", "forkserver", "forkpty"):
                wrong.append(where(path, node))
        wrong += [
            where(path, node)
            for node, name in imports(tree)
            if name.split(".")[0] in ("multiprocessing", "joblib") or name.endswith("futures")
        ]
    assert wrong == []
    assert (
        '"distributed.worker.multiprocessing-method": "spawn"'
        in (PACKAGE / "executor.py").read_text()
    )


def test_files_stay_small():
    long = {
        path.relative_to(ROOT).as_posix(): n
        for path in [*MODULES, *(ROOT / "tests").rglob("*.py")]
        if (n := path.read_text(encoding="utf-8").count("\n")) > MAX_LINES
    }
    assert long == {}


def test_no_drawer_for_everything():
    wrong = [p.name for p in MODULES if p.stem in ("utils", "helpers", "common", "misc")]
    assert wrong == []


def committed_files() -> list[Path]:
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in git.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_paths_of_some_machine():
    pattern = re.compile("|".join("/" + name + "/" for name in ("work", "home", "root", "Users")))
    wrong = []
    for path in committed_files():
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if pattern.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert wrong == []


def test_only_small_files_are_committed():
    large = [p.name for p in committed_files() if p.stat().st_size > 2_000_000]
    assert large == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what it needs."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, the build backend, is not installed here")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("braindecode_pipe", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", source / "dist"],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    return next((source / "dist").glob("*.whl"))


def test_the_wheel_brings_templates_and_recipes(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"braindecode_pipe/pipelines/{p.name}" for p in (ROOT / "pipelines").glob("*.toml")}
    assert wanted - names == set()
    assert any(name.endswith(".j2") for name in wanted)
    assert not [n for n in names if n.startswith(("tests/", "data/", "runs/", "reports/"))]


def test_the_wheel_works_without_its_checkout(wheel, tmp_path):
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)  # noqa: S202 - our own wheel
    code = (
        "import braindecode_pipe, braindecode_pipe.report.html\n"
        "print(braindecode_pipe.__file__)\n"
        "print(braindecode_pipe.load_recipe('eeg_faces').study.name)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert ran.stdout.splitlines() == [
        str(installed / "braindecode_pipe" / "__init__.py"), "eeg_faces"
    ], ran.stderr  # fmt: skip
