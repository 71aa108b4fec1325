"""Where work runs: failures stay with the unit that fails, and nothing waits for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from braindecode_pipe.errors import DataError, InputError, StoreLockedError
from braindecode_pipe.executor import Executor, Task, call

WORK = """
import os, time

def work(number, folder, die=()):
    with open(os.path.join(folder, f"{number}-{os.getpid()}"), "a") as stream:
        stream.write("x")
    if number in die:
        os._exit(9)
    if number == 3:
        from braindecode_pipe.errors import DataError
        raise DataError("bad recording", file="three.edf", remedy="mend it")
    if number == 5:
        raise KeyError("five")
    time.sleep(0.05)

def threads(folder):
    import threadpoolctl, torch, numpy
    pools = {p["num_threads"] for p in threadpoolctl.threadpool_info()}
    with open(os.path.join(folder, "threads"), "w") as stream:
        stream.write(f"{sorted(pools)} {torch.get_num_threads()}")

def sss(folder):
    # Bad channels of 306 by SSS: simulated, noise alone.
    import mne, numpy as np
    from braindecode_pipe.preprocess.bads import find_noisy
    from braindecode_pipe.preprocess.steps import Log
    from braindecode_pipe.simulate.forward import make_head, sensor_info
    from braindecode_pipe.simulate.settings import Settings
    settings = Settings(sfreq=200.0)
    info = sensor_info(settings, "meg", make_head(settings, "01"))
    noise = 1e-13 * np.random.default_rng(0).normal(size=(306, 1010))
    log = Log()
    find_noisy(mne.io.RawArray(noise, info, verbose="error"), ["maxwell"], 0, log)
    assert log.steps[0].startswith("bad channels by SSS")
    threads(folder)

def malloc(folder):
    with open(os.path.join(folder, "malloc"), "w") as stream:
        stream.write(" ".join(key for key in os.environ if key.startswith("MALLOC_")))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of tasks that spawned workers can import."""
    (tmp_path / "unit_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tmp_path
    sys.modules.pop("unit_work", None)


def tasks(folder, **kwargs):
    return [
        Task(f"t{i}", "unit_work:work", {"number": i, "folder": str(folder), **kwargs})
        for i in range(8)
    ]


def test_in_process_failures_stay_alone(module):
    outcomes = {}
    with Executor() as executor:
        executor.run(tasks(module), lambda o: outcomes.update({o.name: o}))
    assert list(outcomes) == [f"t{i}" for i in range(8)]
    assert {n for n, o in outcomes.items() if o.error} == {"t3", "t5"}
    assert outcomes["t3"].bad_input and "mend it" in outcomes["t3"].error
    assert not outcomes["t5"].bad_input and "KeyError" in outcomes["t5"].error
    assert "unit_work.py" in outcomes["t5"].trace


def test_f09_exactly_the_recording_that_kills_workers_fails(module):
    outcomes = {}
    with Executor(jobs=2) as executor:
        executor.run(tasks(module, die=(2,)), lambda o: outcomes.update({o.name: o}))
    assert set(outcomes) == {f"t{i}" for i in range(8)}
    assert {n for n, o in outcomes.items() if o.error} == {"t2", "t3", "t5"}
    assert "worker process died 3 times" in outcomes["t2"].error
    assert "mend it" in outcomes["t3"].error
    pids = {name.split("-")[1] for name in os.listdir(module) if name.startswith("2-")}
    assert len(pids) == 3 and str(os.getpid()) not in pids


def test_local_workers_take_turns_on_the_gpus(monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    call("here", "operator:neg", {}, 1)  # no worker, so nothing is taken
    for name in (0, 1, 2, "tcp://h:1"):
        worker = types.SimpleNamespace(name=name)
        monkeypatch.setattr("distributed.get_worker", lambda worker=worker: worker)
        call("there", "operator:neg", {}, 1)
    assert taken == [0, 1, 0]


def test_threads_are_those_of_the_recipe(module):
    call("t", "unit_work:threads", {"folder": str(module)}, 1)
    assert (module / "threads").read_text() == "[1] 1"


def test_threads_hold_for_what_a_task_loads_itself(module):
    """BLAS of scipy and OpenMP of scikit-learn come with SSS, after the threads were fixed."""
    run = (
        f"from braindecode_pipe.executor import call\nfound = call('t', 'unit_work:sss', "
        f"{{'folder': {str(module)!r}}}, 1)\nassert not found.error, found.trace"
    )
    paths = os.pathsep.join([str(module), *filter(None, sys.path)])
    many = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    environment = {**os.environ, **many, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", run], env=environment, check=True)
    assert (module / "threads").read_text() == "[1] 1"


def test_workers_keep_the_allocator_as_it_is(module, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with Executor(jobs=2) as executor:
        executor.run([Task("a", "unit_work:malloc", {"folder": str(module)})], lambda outcome: None)
    assert (module / "malloc").read_text() == ""


def test_errors_travel_between_processes():
    import pickle

    for error in (
        DataError("short", file="a.edf", expected="12", found="6", remedy="record again"),
        StoreLockedError("locked"),
    ):
        back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, as workers do
        assert type(back) is type(error) and str(back) == str(error)
    assert issubclass(DataError, InputError) and DataError.exit_code == 2


def test_any_dask_scheduler_can_do_the_work(module):
    from distributed import LocalCluster

    outcomes = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Executor(scheduler=cluster.scheduler_address) as executor,
    ):
        executor.run(tasks(module), lambda o: outcomes.update({o.name: o}))
    assert set(outcomes) == {f"t{i}" for i in range(8)}
    assert {n for n, o in outcomes.items() if o.error} == {"t3", "t5"}


def test_a_scheduler_that_does_not_answer_is_bad_input(monkeypatch):
    monkeypatch.setattr("braindecode_pipe.executor.CONNECT_S", 0.5)
    with (
        pytest.raises(InputError, match="scheduler cannot be reached"),
        Executor(scheduler="tcp://127.0.0.1:9") as executor,
    ):
        executor.run([Task("t", "unit_work:work", {})], print)


def two_processes(*arguments: str):
    """The exit codes and what both wrote, of ``team_work.py`` in a team of two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1",
           "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("team_work.py"), *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**env, "RANK": str(rank)},
        )  # fmt: skip
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=120) for process in started]
    return [process.returncode for process in started], told


def test_a_team_shares_tasks_and_outlives_those_that_fail_in_one_process(tmp_path):
    codes, ((out, err), (other, warned)) = two_processes(str(tmp_path))
    assert codes == [0, 0], err + warned
    said = dict(line.split(" ", 1) for line in out.splitlines())
    assert said["first"] == said["last"] == said["alone"] == "False ''"
    assert "process 1: bad recording" in said["foreseen"] and "mend it" in said["foreseen"]
    assert "process 1: KeyError: 'five'" in said["unforeseen"]
    assert said["own"].startswith("True 'bad recording")
    for rank in (0, 1):
        # Both have the sum of both, the threads of the recipe, and all that was handed over.
        assert (tmp_path / f"first-{rank}").read_text() == "[3.0, 2, 1000000, 2]"
    assert (tmp_path / "alone").read_text() == "0"
    assert {path.name for path in tmp_path.iterdir()} == {
        "first-0", "first-1", "alone", "last-0", "last-1"
    }  # fmt: skip
    assert other == "left\n"
    lines = [line for line in warned.splitlines() if "process 1 of 2" in line]
    assert [line.split(": ")[1].split()[0] for line in lines] == ["foreseen", "unforeseen", "own"]
    assert "process 0: bad recording" in lines[2]


def test_the_others_end_when_the_first_process_dies():
    codes, (_, (other, _)) = two_processes("dies")
    assert codes == [3, 0] and other == "left\n"


def test_a_team_starts_no_workers():
    team = types.SimpleNamespace(size=4)
    with pytest.raises(InputError, match="4 processes and --jobs 2[\\s\\S]*leave --jobs"):
        Executor(jobs=2, team=team)
    with pytest.raises(InputError, match="--scheduler tcp://h:1"):
        Executor(scheduler="tcp://h:1", team=team)
