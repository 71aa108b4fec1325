"""What importing the package costs, and what it gives."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import braindecode_pipe

HEAVY = (
    "torch", "mne", "mne_bids", "nilearn", "nibabel", "sklearn", "pandas", "xarray", "zarr",
    "dask", "distributed", "numpy", "scipy", "matplotlib", "himalaya",
)  # fmt: skip
ROOMS = ("audit", "embed", "report")


def modules_and_seconds(code: str) -> tuple[set[str], float]:
    """Top-level modules that are loaded after ``code``, and the seconds that it took."""
    script = (
        "import sys, time\nstart = time.perf_counter()\n"
        f"{code}\n"
        "seconds = time.perf_counter() - start\n"
        "names = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print('\\n' + str(seconds) + ' ' + ' '.join(names))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *names = out.stdout.rsplit("\n", 2)[1].split()
    return set(names), float(seconds)


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import braindecode_pipe", 0.1),
        ("from braindecode_pipe.cli import main; main(['--help'])", 0.5),
        ("from braindecode_pipe.cli import main; main(['run', '--help'])", 0.5),
        ("from braindecode_pipe.cli import main; main(['--version'])", 0.5),
    ],
)
def test_nothing_heavy_is_loaded_and_it_is_quick(code, limit):
    # The quickest of some tries: other processes may be busy on this machine.
    tries = [modules_and_seconds(code) for _ in range(3)]
    assert sorted(tries[0][0] & set(HEAVY)) == []
    assert min(seconds for _, seconds in tries) < limit


def test_the_package_itself_loads_nothing_of_others():
    names, _ = modules_and_seconds("import braindecode_pipe")
    assert names & {"pydantic", "typer", "rich"} == set()


def test_the_list_of_heavy_modules_would_be_noticed():
    names, _ = modules_and_seconds("import braindecode_pipe; braindecode_pipe.Windows")
    assert {"numpy", "pandas"} <= names & set(HEAVY)


def test_public_names():
    assert sorted(braindecode_pipe.__all__) == [
        "BrainDecoder", "Windows", "audit", "embed", "load_recipe", "open_events", "open_signal",
        "report", "retrieve", "run",
    ]  # fmt: skip
    assert set(braindecode_pipe.__all__) <= set(dir(braindecode_pipe))
    for name in braindecode_pipe.__all__:
        value = getattr(braindecode_pipe, name)
        assert isinstance(value, ModuleType) if name in ROOMS else callable(value)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'decode'"):
        _ = braindecode_pipe.decode


@pytest.mark.parametrize("name", ROOMS)
@pytest.mark.parametrize("order", ["name first", "module first"])
def test_a_room_is_the_room_whichever_way_it_is_reached(name, order):
    lines = [
        "import sys, braindecode_pipe",
        f"a = braindecode_pipe.{name}",
        f"import braindecode_pipe.{name} as b",
        f"from braindecode_pipe import {name} as c",
        f"assert a is b is c is braindecode_pipe.{name} is sys.modules['braindecode_pipe.{name}']",
    ]
    if order == "module first":
        lines.insert(1, f"import braindecode_pipe.{name}")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize(
    ("room", "name"), [("embed", "embed"), ("audit", "audit"), ("report", "run")]
)
def test_rooms_bring_their_function(room, name):
    assert callable(getattr(getattr(braindecode_pipe, room), name))


def test_module_runs_as_a_command():
    out = subprocess.run(
        [sys.executable, "-m", "braindecode_pipe", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.strip() == braindecode_pipe.__version__
