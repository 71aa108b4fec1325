"""The form of a BIDS app: participants one after the other, then the group."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.cli.bids import spread
from braindecode_pipe.errors import InputError
from braindecode_pipe.preprocess.sensors import to_raw
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.store import open_store

NAMES = ("Fp1", "Fp2", "Cz", "Pz", "Oz", "O1")
RECIPE = '[split]\nby = "none"\n[preprocess.emeg]\nsfreq = "none"\nl_freq = 1.0\nh_freq = 30.0\n'


def write_participant(root: Path, label: str, tasks=("x",)) -> None:
    folder = root / f"sub-{label}" / "eeg"
    folder.mkdir(parents=True)
    for task in tasks:
        stem = f"sub-{label}_task-{task}_eeg"
        data = np.random.default_rng(int(label)).normal(0, 10, (len(NAMES), 1500))
        channels = "".join(f"Ch{i + 1}={name},,1,µV\n" for i, name in enumerate(NAMES))
        (folder / f"{stem}.vhdr").write_text(
            "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
            f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\n"
            f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(NAMES)}\n"
            "SamplingInterval=10000\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n"
            f"[Channel Infos]\n{channels}",
            encoding="utf-8",
        )
        (folder / f"{stem}.vmrk").write_text(
            "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
            f"DataFile={stem}.eeg\n[Marker Infos]\n"
        )
        (folder / f"{stem}.eeg").write_bytes(np.asarray(data.T, "<f4").tobytes())


@pytest.fixture
def bids(tmp_path) -> Path:
    """One person at rest: one recording, no event."""
    root = tmp_path / "bids"
    root.mkdir()
    (root / "dataset_description.json").write_text(
        json.dumps(
            {"Name": "rest", "BIDSVersion": "1.9.0", "License": "CC0", "DatasetDOI": "doi:10.1/x"}
        )  # fmt: skip
    )
    write_participant(root, "01")
    return root


@pytest.fixture
def config(tmp_path) -> str:
    file = tmp_path / "config.toml"
    file.write_text(RECIPE)
    return str(file)


def stores(out: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of every signal store: time of its last change and content."""
    return {
        file.relative_to(out).as_posix(): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted((out / "preprocess").rglob("*"))
        if file.is_file()
    }


def test_a_participant_is_added_and_nothing_that_stands_is_touched(bids, tmp_path, config):
    out = tmp_path / "out"
    command = ["bids", str(bids), str(out), "participant", "--config", config, "-q"]
    assert main([*command, "--participant-label", "01"]) == 0
    before = stores(out)
    description = out / "dataset_description.json"
    written = description.read_bytes(), description.stat().st_mtime_ns
    page = (out / "qc" / "sub-01_task-x_eeg.html").read_bytes()
    assert before and b"sub-01_task-x_eeg" in page
    write_participant(bids, "02")
    assert main([*command, "--participant-label", "sub-02", "--skip-bids-validation"]) == 0
    after = stores(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)
    assert (description.read_bytes(), description.stat().st_mtime_ns) == written
    assert (out / "qc" / "sub-01_task-x_eeg.html").read_bytes() == page
    record = json.loads((out / "participant-02.json").read_text())
    assert [unit["unit"] for unit in record["units"] if unit["stage"] == "preprocess"] == [
        "sub-02_task-x_eeg"
    ]
    assert not (out / "report.html").exists()
    # A second time nothing has to run; of everybody, only who is new.
    write_participant(bids, "03")
    assert main(command) == 0
    record = json.loads((out / "participant-all.json").read_text())
    assert {u["unit"]: u["status"] for u in record["units"] if u["stage"] == "preprocess"} == {
        "sub-01_task-x_eeg": "cached", "sub-02_task-x_eeg": "cached", "sub-03_task-x_eeg": "done",
    }  # fmt: skip


def test_a_store_of_a_participant_is_that_of_an_ordinary_run(bids, tmp_path, config):
    out = tmp_path / "out"
    assert main(["bids", str(bids), str(out), "participant", "--config", config, "-q"]) == 0
    recipe = parse_recipe(RECIPE, "r")
    result = pipeline.run(recipe, bids, tmp_path / "run", until="preprocess", quiet=True)
    (mine,) = (row.path for row in result.rows if row.stage == "preprocess")
    (store,) = (out / "preprocess" / "sub-01_task-x_eeg").glob("*.zarr")
    assert store.name == mine.name
    assert open_store(store)["signal"].shape == (6, 1500)
    assert to_raw(store).ch_names == list(NAMES)


def test_the_group_gathers_what_is_there_and_makes_nothing(bids, tmp_path, config):
    out = tmp_path / "out"
    options = ["--config", config, "-q"]
    label = ["--participant-label", "01"]
    assert main(["bids", str(bids), str(out), "participant", *options, *label]) == 0
    write_participant(bids, "02")
    before = stores(out)
    assert main(["bids", str(bids), str(out), "group", *options]) == 0
    assert stores(out) == before
    page = (out / "report.html").read_text()
    assert "qc/sub-01_task-x_eeg.html" in page and "FAILED" not in page
    pages = {file.name for file in (out / "qc").iterdir()} - {"index.html"}
    assert pages == {"sub-01_task-x_eeg.html"}
    # What participants were given is in use, whoever ran last.
    assert pipeline.clean(out) == [] or all("report" in p.parts for p in pipeline.clean(out))
    assert stores(out) == before


def test_the_derivative_describes_itself(bids, tmp_path, config):
    out = tmp_path / "derivatives" / "braindecode_pipe"
    assert main(["bids", str(bids), str(out), "participant", "--config", config, "-q"]) == 0
    content = json.loads((out / "dataset_description.json").read_text())
    assert content["DatasetType"] == "derivative" and content["License"] == "CC0"
    assert content["GeneratedBy"][0]["Name"] == "braindecode_pipe"
    assert content["GeneratedBy"][0]["Version"]
    assert content["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]
    assert str(tmp_path) not in (out / "dataset_description.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--participant-label", "07"], "participants that the data set does not have"),
        (["--participant-label", "../01"], "participants that the data set does not have"),
    ],
)
def test_wrong_labels_are_told(arguments, text, bids, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["bids", str(bids), str(out), "participant", "-q", *arguments]) == 2
    shown = capsys.readouterr().err
    assert text in shown and "expected: 01" in shown and "Traceback" not in shown
    assert not out.exists()


def test_folders_that_cannot_be_the_output(bids, tmp_path):
    recipe = parse_recipe(RECIPE, "r")
    with pytest.raises(InputError, match="cannot go into the data set itself"):
        pipeline.run_bids(recipe, bids, bids, "participant", quiet=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"Name": "mine", "BIDSVersion": "1.9.0"}')
    with pytest.raises(InputError, match='another data set(.|\n)*"mine"'):
        pipeline.run_bids(recipe, bids, other, "participant", quiet=True)
    with pytest.raises(InputError, match="no such level(.|\n)*participant | group"):
        pipeline.run_bids(recipe, bids, tmp_path / "out", "subject", quiet=True)


def test_tasks_and_sessions_are_chosen(bids, tmp_path, config):
    write_participant(bids, "02", tasks=("x", "y"))
    out = tmp_path / "out"
    command = ["bids", str(bids), str(out), "participant", "--config", config, "-q"]
    assert main([*command, "--participant_label", "01", "02", "--task-label", "y"]) == 0
    assert [path.name for path in (out / "preprocess").iterdir()] == ["sub-02_task-y_eeg"]


def test_a_participant_that_fails_leaves_the_others(bids, tmp_path, config, capsys):
    write_participant(bids, "02")
    samples = bids / "sub-02/eeg/sub-02_task-x_eeg.eeg"
    samples.write_bytes(samples.read_bytes()[:-7])
    out = tmp_path / "out"
    assert main(["bids", str(bids), str(out), "participant", "--config", config, "-q"]) == 2
    shown = capsys.readouterr().err
    line = next(line for line in shown.splitlines() if "preprocess" in line)
    assert "shorter than declared; file:" in line and "found: 1499 samples" in line
    assert [path.name for path in (out / "preprocess").iterdir() if any(path.glob("*.zarr"))] == [
        "sub-01_task-x_eeg"
    ]


def test_lists_of_labels_are_spread():
    given = ["bids", "D", "O", "participant", "--participant-label", "01", "02", "--n-cpus", "2",
             "--task_label", "x", "--session-label=1"]  # fmt: skip
    assert spread(given) == [
        "bids", "D", "O", "participant", "--participant-label", "01", "--participant-label", "02",
        "--n-cpus", "2", "--task-label", "x", "--session-label=1",
    ]  # fmt: skip


def test_nothing_is_decoded_without_a_split(bids, tmp_path, capsys):
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    command = ["train", str(recipe), "--data", str(bids), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "nothing is decoded without a split" in capsys.readouterr().err
