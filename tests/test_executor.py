"""Where work runs: failures stay with the unit that fails, and nothing waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys

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
