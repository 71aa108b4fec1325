"""The command line: what it passes on, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.cli.options import Stage
from braindecode_pipe.errors import DataError, StageError
from braindecode_pipe.pipeline import RunResult, UnitResult
from braindecode_pipe.schema import embedding_dataset
from braindecode_pipe.store import write_store

COMMANDS = (
    "init", "demo", "check", "run", "plan", "preprocess", "embed", "train", "evaluate",
    "reconstruct", "report", "bids", "config", "schema", "inspect", "verify", "audit", "compare",
    "ablate", "doctor", "fetch", "simulate", "clean",
)  # fmt: skip


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty working directory with a recipe in it."""
    monkeypatch.chdir(tmp_path)
    Path("faces.toml").write_text('[study]\nname = "faces"\n[embed.trial_type]\n')
    return tmp_path


@pytest.fixture
def pipeline_run(monkeypatch):
    """``pipeline.run`` that only notes its arguments; its result can be set."""

    class Recorder:
        result: RunResult | BaseException = RunResult()

        def __call__(self, recipe, data, out, **options):
            self.recipe, self.data, self.out, self.options = recipe, data, out, options
            if isinstance(self.result, BaseException):
                raise self.result
            return self.result

    recorder = Recorder()
    monkeypatch.setattr(pipeline, "run", recorder)
    return recorder


def small_store(path: Path) -> Path:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    attrs = {"data_origin": "simulated", "model": "one-hot"}
    write_store(path, {"": embedding_dataset(values, ["a", "b", "c"], attrs)})
    return path


# --- help ----------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f" {name} " in shown
    assert [stage.value for stage in Stage] == list(pipeline.STAGES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert "Usage: braindecode-pipe " + name in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["rn"], ["run"], ["run", "x", "--jobs", "0", "--data", "d"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


# --- run -----------------------------------------------------------------------------------------


def test_run_passes_everything_on(in_folder, pipeline_run):
    options = (
        "--data d --set evaluate.bootstrap=7 --jobs 2 --scheduler tcp://h:1 --from embed "
        "--until train --force embed --force train --dry-run --break-lock --ledger books --quiet "
        "--tensorboard curves --allow-leak time"
    )
    code = main(["run", "faces.toml", *options.split()])
    assert code == 0
    assert pipeline_run.recipe.evaluate.bootstrap == 7
    assert pipeline_run.data == Path("d")
    assert pipeline_run.out == Path("runs/faces")
    assert pipeline_run.options == {
        "jobs": 2, "scheduler": "tcp://h:1", "start": "embed", "until": "train",
        "force": ("embed", "train"), "dry_run": True, "break_lock": True, "ledger": Path("books"),
        "quiet": True, "tensorboard": Path("curves"), "allow_leaks": ("time",), "anonymize": False,
    }  # fmt: skip


def test_reports_alone_and_without_names(in_folder, pipeline_run):
    assert main(["run", "faces.toml", "--data", "d", "--reports-only", "--anonymize"]) == 0
    told = {name: pipeline_run.options[name] for name in ("start", "force", "anonymize")}
    assert told == {"start": "report", "force": ("report",), "anonymize": True}
    assert main(["run", "faces.toml", "--data", "d", "--reports-only", "--until", "embed"]) == 2


def test_curves_of_networks_are_asked_for_with_train_too(in_folder, pipeline_run):
    assert main(["train", "faces.toml", "--data", "d", "--tensorboard", "curves"]) == 0
    assert pipeline_run.options["tensorboard"] == Path("curves")


def test_a_job_for_slurm_is_printed_and_nothing_is_run(in_folder, pipeline_run, capsys):
    out = in_folder / "a place"
    code = main([
        "train", "faces.toml", "--data", "d $(x)", "--out", str(out), "--set", "train.seeds=3",
        "--slurm", "--nodes", "2", "--gpus", "4", "--time", "2-00:00:00", "--partition", "gpu",
        "--set", "compute.threads=2",
    ])  # fmt: skip
    script = capsys.readouterr().out
    assert code == 0 and not hasattr(pipeline_run, "recipe") and not out.exists()
    for option in (
        "job-name=faces", "nodes=2", "ntasks-per-node=1", "gpus-per-node=4", "cpus-per-task=8",
        "time=2-00:00:00", "partition=gpu",
    ):  # fmt: skip
        assert f"\n#SBATCH --{option}\n" in script
    # It is valid, and what it starts is this command with these words.
    (in_folder / "job.sh").write_text(script)
    assert subprocess.run(["bash", "-n", "job.sh"], capture_output=True).returncode == 0
    fakes = "scontrol() { printf 'node7\nnode8\n'; }; srun() { printf '%s\n' \"$@\"; }\n"
    env = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "41234", "PATH": os.environ["PATH"]}
    ran = subprocess.run(["bash", "-c", fakes + script], capture_output=True, text=True, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    words = ran.stdout.splitlines()
    assert words[:4] == ["--kill-on-bad-exit=1", sys.executable, "-m", "torch.distributed.run"]
    after = dict(zip(words, words[1:]))
    assert (after["--nnodes"], after["--nproc-per-node"]) == ("2", "4")
    assert after["--rdzv-endpoint"] == "node7:21234" and after["--rdzv-id"] == "41234"
    program = words[words.index("braindecode_pipe") + 1 :]
    assert program[:2] == ["train", str(in_folder / "faces.toml")]
    assert after["--data"] == str(in_folder / "d $(x)") and after["--out"] == str(out)
    assert "train.seeds=3" in program and "--slurm" not in program


@pytest.mark.parametrize(
    ("option", "told"),
    [("--jobs 2", "starts its processes itself"), ("--time soon", "time limit cannot be read"),
     ("--partition a;b", "no name of a partition")],
)  # fmt: skip
def test_a_job_that_makes_no_sense_is_refused(option, told, in_folder, pipeline_run, capsys):
    assert main(["train", "faces.toml", "--data", "d", "--slurm", *option.split()]) == 2
    assert told in capsys.readouterr().err


def test_other_processes_of_torchrun_leave_what_is_not_shared_to_the_first(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stage", [stage.value for stage in Stage])
def test_a_stage_is_run_until_that_stage(stage, in_folder, pipeline_run):
    assert main([stage, "faces.toml", "--data", "d", "--out", "o", "--force", stage]) == 0
    assert pipeline_run.options["until"] == stage
    assert pipeline_run.options["start"] is None
    assert pipeline_run.options["force"] == (stage,)
    assert pipeline_run.out == Path("o")


def evaluation(path: Path, content: str) -> UnitResult:
    write_store(path, {}, files={"metrics.json": content.encode()})
    return UnitResult("evaluate", "object", "done", "never ran here", path=path)


def test_result_is_printed_whole(in_folder, pipeline_run, capsys):
    out = in_folder / ("long-" * 30)
    record = {
        "metric": "top1", "value": 0.7512, "ci_low": 0.7, "ci_high": 0.8, "chance": 0.125,
        "p_value": 0.0005, "n_queries": 96, "n_candidates": 8, "decoder": "ridge",
        "embedding": "object", "subject": "all", "data_origin": "recorded",
    }  # fmt: skip
    records = [
        record,
        {**record, "subject": "01", "value": 0.4},
        {**record, "metric": "null_sd"},
        {**record, "decoder": "prior", "value": 0.125},
        {**record, "decoder": "mlp", "metric": "identification_accuracy"},
        {**record, "decoder": "mlp"},
    ]
    unit = evaluation(out / "evaluate" / "object" / "0.zarr", json.dumps(records))
    pipeline_run.result = RunResult([unit], report=out / "report.html")
    assert main(["run", "faces.toml", "--data", "d", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"Report: {out / 'report.html'}\n" in shown
    mlp, ridge = (line.split() for line in sorted(shown.splitlines()) if "object " in line)
    numbers = ["0.7512", "0.7", "to", "0.8", "0.125", "0.0005", "96", "8", "recorded"]
    assert ridge == ["object", "ridge", "top1", *numbers]
    assert mlp == ["object", "mlp", "identification_accuracy", *numbers]
    assert "prior" not in shown
    assert "Everything is up to date" not in shown


def test_a_second_run_says_that_all_is_up_to_date_and_why(in_folder, pipeline_run, capsys):
    pipeline_run.result = RunResult([UnitResult("plan", "study", "cached", "unchanged")])
    assert main(["run", "faces.toml", "--data", "d"]) == 0
    shown = capsys.readouterr().out
    assert "Everything is up to date" in shown
    assert "unchanged" in shown


@pytest.mark.parametrize(("bad_input", "code"), [(False, 1), (True, 2)])
def test_failures_are_told_on_stderr(bad_input, code, in_folder, pipeline_run, capsys):
    failed = UnitResult(
        "train", "sub-[red]01", "failed", "", error="it [b]broke", bad_input=bad_input
    )
    pipeline_run.result = RunResult([UnitResult("plan", "study", "done", ""), failed])
    assert main(["run", "faces.toml", "--data", "d"]) == code
    shown = capsys.readouterr()
    assert "sub-[red]01" in shown.err
    assert "it [b]broke" in shown.err
    assert "done" in shown.out


def test_several_studies_are_told_apart(in_folder, pipeline_run, capsys):
    record = json.dumps(
        [{"metric": "auc", "value": 0.5, "decoder": "ridge", "embedding": "object"}]
    )
    units = [evaluation(in_folder / name / "evaluate/object/0.zarr", record) for name in ("a", "b")]
    pipeline_run.result = RunResult(units)
    assert main(["run", "faces.toml", "--data", "d"]) == 0
    shown = capsys.readouterr().out
    assert str(in_folder / "a") in shown
    assert str(in_folder / "b") in shown


def test_what_will_run_has_no_result_yet(in_folder, pipeline_run, capsys):
    unit = UnitResult("evaluate", "object", "will run", "never ran here", path=in_folder / "0.zarr")
    pipeline_run.result = RunResult([unit])
    assert main(["run", "faces.toml", "--data", "d", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "will run" in shown
    assert "candidates" not in shown


@pytest.mark.parametrize("content", ["{", "3", "[4]"])
def test_broken_metrics_are_an_error_with_a_path(content, in_folder, pipeline_run, capsys):
    unit = evaluation(in_folder / "0.zarr", content)
    pipeline_run.result = RunResult([unit])
    assert main(["run", "faces.toml", "--data", "d"]) == 1
    assert f"file: {in_folder / '0.zarr'}" in capsys.readouterr().err


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no [bold]samples[/bold]", file="a[/b].vhdr", found="\x1b[31mred"), 2),
        (StageError("1 of 3 recordings failed"), 1),
    ],
)
def test_foreseen_errors_are_told_without_traceback(error, code, in_folder, pipeline_run, capsys):
    pipeline_run.result = error
    assert main(["run", "faces.toml", "--data", "d"]) == code
    shown = capsys.readouterr().err
    assert shown == f"Error: {str(error).replace(chr(27), ' ')}\n"


def test_a_bug_is_one_line_and_a_log_in_the_run_folder(in_folder, pipeline_run, capsys):
    Path("o").mkdir()
    pipeline_run.result = ZeroDivisionError("[bold]by nothing")
    assert main(["run", "faces.toml", "--data", "d", "--out", "o"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "ZeroDivisionError: [bold]by nothing (this is a bug" in shown
    assert str(Path("o/crash.log")) in shown
    assert "Traceback" in Path("o/crash.log").read_text()


def test_a_bug_shows_its_traceback_when_asked(in_folder, pipeline_run, capsys, monkeypatch):
    monkeypatch.setenv("BRAINDECODE_PIPE_DEBUG", "1")
    monkeypatch.setenv("TMPDIR", str(in_folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    pipeline_run.result = ZeroDivisionError("x")
    assert main(["run", "faces.toml", "--data", "d", "--out", "not-there"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert not Path("not-there").exists()
    assert len(list(in_folder.glob("braindecode-pipe-*/crash.log"))) == 1


def test_interruption_ends_with_130(in_folder, pipeline_run, capsys):
    pipeline_run.result = KeyboardInterrupt()
    assert main(["run", "faces.toml", "--data", "d"]) == 130
    assert "continues where it stopped" in capsys.readouterr().err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color, coloured, in_folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["config", "nowhere.toml"]) == 2
    assert ("\x1b[1;31m" in capsys.readouterr().err) == coloured


# --- looking -------------------------------------------------------------------------------------


def test_config_prints_a_recipe_that_loads(in_folder, capsys):
    assert main(["config", "faces.toml", "--set", "split.by=time"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["study"]["name"] == "faces"
    assert shown["split"]["by"] == "time"
    assert shown["train"]["epochs"] == 50


def test_unknown_key_names_line_and_cure(in_folder, capsys):
    Path("bad.toml").write_text("[split]\nbi = 'run'\n")
    assert main(["config", "bad.toml"]) == 2
    shown = capsys.readouterr().err
    assert "file: bad.toml:2" in shown
    assert 'remedy: did you mean "by"?' in shown


def test_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "braindecode_pipe recipe"


def test_inspect_and_verify_a_store(tmp_path, capsys):
    store = small_store(tmp_path / "embed" / "object" / "0123.zarr")
    assert main(["inspect", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "embedding (stimulus 3, feature 4) float32" in shown
    assert "data_origin = simulated" in shown
    assert main(["inspect", str(tmp_path)]) == 0
    assert "embed/object/0123.zarr" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 0
    assert f"intact  {store}\n" in capsys.readouterr().out

    chunk = max(store.rglob("c/*/*"), key=lambda file: file.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    assert main(["verify", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert f"damaged  {store}\n" in shown
    assert chunk.relative_to(store).as_posix() in shown


def test_verify_names_incomplete_stores_and_goes_on(tmp_path, capsys):
    store = small_store(tmp_path / "b.zarr")
    (tmp_path / "a.zarr").mkdir()
    assert main(["verify", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "damaged  " + str(tmp_path / "a.zarr") in shown
    assert "never finished" in shown
    assert f"intact  {store}" in shown
    assert main(["inspect", str(tmp_path)]) == 0
    assert "incomplete" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_no_store(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    assert "there is no store" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["audit", "clean"])
def test_no_run(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_doctor_prints_versions(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in shown
    assert "numpy" in shown
    assert "missing" not in shown


# --- check and init ------------------------------------------------------------------------------


def test_check_reads_a_data_set_without_recipe(shared_data, capsys):
    assert main(["check", str(shared_data / "haxby2001-slice")]) == 0
    assert "12 recordings of 1 people, 96 events, 8 stimuli, 12 folds" in capsys.readouterr().out


def test_check_reads_a_recipe_with_data(shared_data, capsys):
    data = str(shared_data / "haxby2001-slice")
    assert main(["check", "fmri_objects", "--data", data, "--set", "plan.runs=['01']"]) == 2
    assert "has no train item" in capsys.readouterr().out


def test_check_of_a_recipe_needs_data(capsys):
    assert main(["check", "fmri_objects"]) == 2
    assert "--data DIR" in capsys.readouterr().err


def test_init_writes_a_recipe_and_never_overwrites(shared_data, in_folder, capsys):
    data = str(shared_data / "haxby2001-slice")
    assert main(["init", data, "-o", "new.toml"]) == 0
    assert "scissors (12)" in capsys.readouterr().out
    written = Path("new.toml").read_text()
    assert main(["check", "new.toml", "--data", data]) == 0
    Path("new.toml").write_text("mine")
    assert main(["init", data, "-o", "new.toml"]) == 2
    assert "already there" in capsys.readouterr().err
    assert Path("new.toml").read_text() == "mine"
    assert main(["init", data, "-o", "new.toml", "--force"]) == 0
    assert Path("new.toml").read_text() == written


def test_init_into_a_folder_that_is_not_there(shared_data, in_folder, capsys):
    data = str(shared_data / "haxby2001-slice")
    assert main(["init", data, "-o", "no/such/recipe.toml"]) == 2
    assert "cannot be written" in capsys.readouterr().err
