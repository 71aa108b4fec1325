"""Bad input through the command line: what is told, how it ends, and that nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe.cli import main
from braindecode_pipe.store import verify_store

STEM = "sub-02_task-words_run-2"


@pytest.fixture
def command(recipe_text, tmp_path, capsys):
    """``run`` as a user types it; returns exit code and everything that was printed."""
    recipe = tmp_path / "words.toml"
    recipe.write_text(recipe_text)

    def call(data: Path, *options: str, text: str | None = None, until: str = "preprocess"):
        recipe.write_text(recipe_text if text is None else text)
        out = () if "--out" in options else ("--out", str(tmp_path / "out"))
        arguments = ["run", str(recipe), "--data", str(data), "--until", until, "--quiet"]
        code = main([*arguments, *out, *options])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        assert "this is a bug" not in shown.err
        # Tables are drawn with borders and break lines.
        return code, re.sub(r"[\s│┃|]+", " ", shown.out + shown.err)

    return call


def told(text: str, *parts: str) -> None:
    """The parts stand in the text, and so do what was expected, found, and what can be done."""
    for part in (*parts, "expected: ", "found: ", "remedy: "):
        assert part in text, f"{part!r} is not in: {text[-1500:]}"


def events_of(data: Path, stem: str = STEM) -> Path:
    return data / stem.split("_")[0] / "eeg" / f"{stem}_events.tsv"


def samples(data: Path, stem: str = STEM) -> np.ndarray:
    """The recording's samples (n_times, 4) [uV], to be changed in place on the disk."""
    return np.memmap(events_of(data, stem).with_name(f"{stem}_eeg.eeg"), "<f4", "r+").reshape(-1, 4)


# --- recipe and arguments ------------------------------------------------------------------------


def test_missing_data_folder(command, tmp_path):
    code, text = command(tmp_path / "nowhere")
    assert code == 2 and str(tmp_path / "nowhere") in text
    assert "the data folder does not exist" in text and "--data DIR" in text


def test_unknown_key(command, bids, recipe_text, tmp_path):
    code, text = command(bids, text=recipe_text.replace("bootstrap", "bootstrp"))
    line = recipe_text.splitlines().index("bootstrap = 200") + 1
    assert code == 2
    told(text, "unknown key 'bootstrp' in [evaluate]", f"words.toml:{line}", '"bootstrap"?')
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.bootstrap=many", "evaluate.bootstrap cannot have this value"),
        ("evaluate.ci=1.5", "evaluate.ci cannot have this value"),
        ("train.decoders=['svm']", "train.decoders.0 cannot have this value"),
        ("evaluate.bootstrap", "an override cannot be read"),
    ],
)
def test_bad_override(override, message, command, bids):
    code, text = command(bids, "--set", override)
    assert code == 2
    assert message in text and f"--set {override}" in text and "expected: " in text


def test_no_training_item(command, bids):
    for file in bids.rglob("*run-[23]*"):
        file.unlink()
    code, text = command(bids)
    assert code == 2
    told(text, "has no train item", "1 group(s) of kind 'run'")


# --- events and stimuli --------------------------------------------------------------------------


def test_no_events_at_all(command, bids):
    for file in bids.rglob("*_events.tsv"):
        file.unlink()
    code, text = command(bids)
    assert code == 2
    told(text, "no recording has events", str(bids), "events.tsv beside the recordings")


def test_one_recording_without_events(command, bids, tmp_path):
    events_of(bids).unlink()
    code, text = command(bids)
    assert code == 2
    told(text, "the recording has no events", f"sub-02/eeg/{STEM}_eeg.vhdr")
    assert len(list((tmp_path / "out" / "preprocess").glob("*/*.zarr/COMMITTED"))) == 6


def test_events_in_milliseconds(command, bids):
    for file in bids.rglob("*_events.tsv"):
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        body = [[f"{float(onset) * 1e3:g}", *rest] for onset, *rest in rows[1:]]
        file.write_text("\n".join("\t".join(row) for row in [rows[0], *body]) + "\n")
    code, text = command(bids)
    assert code == 2
    told(text, "events lie outside the recording", "_events.tsv", "onsets between 0 and 22.000 s")


def test_event_of_a_stimulus_that_is_not_there(command, bids, recipe_text):
    (bids / "stimuli").mkdir()
    text = recipe_text.replace(
        "[plan.stimuli.word]", '[plan.stimuli.word]\nkind = "image"'
    ).replace("[embed.word]", '[embed.word]\nmodel = "pixels"')
    code, text = command(bids, text=text)
    assert code == 2
    told(text, "is named in the events and not on disk", str(bids / "stimuli" / "bus"))


# --- recordings ----------------------------------------------------------------------------------


@pytest.fixture
def only_one_fails(command, tmp_path):
    """Run, and check that the recording that was damaged failed and no other did."""

    def check(data: Path, *parts: str, name: str = f"{STEM}_eeg", others: int = 5, **options):
        code, text = command(data, **options)
        assert code == 2, text
        told(text, name, *parts)
        done = {p.parents[1].name for p in (tmp_path / "out").glob("preprocess/*/*.zarr/COMMITTED")}
        assert len(done) == others and name not in done
        return text

    return check


def test_truncated_recording(only_one_fails, bids):
    file = events_of(bids).with_name(f"{STEM}_eeg.eeg")
    for sidecar in bids.rglob("*_eeg.vhdr"):
        sidecar.with_suffix(".json").write_text(json.dumps({"RecordingDuration": 22.0}))
    events = events_of(bids).read_text().splitlines()
    events_of(bids).write_text("\n".join(events[:9]) + "\n")
    file.write_bytes(file.read_bytes()[: 1000 * 16])
    only_one_fails(bids, "22 s (RecordingDuration)", "10 s", "allow_truncated")


def test_nan(only_one_fails, bids):
    samples(bids)[700:720, 2] = np.nan
    only_one_fails(bids, "E3", f"{STEM}_eeg.vhdr", "mark-bad")


def test_wrong_units(only_one_fails, bids):
    samples(bids)[:] *= 2e6
    only_one_fails(bids, "unit", f"{STEM}_eeg.vhdr", "V")


def test_flat_channel_is_told_and_left_out(command, bids, tmp_path):
    from braindecode_pipe.store import open_signal

    samples(bids)[:, 1] = 3.0
    code, _ = command(bids)
    assert code == 0
    store = next((tmp_path / "out" / "preprocess" / f"{STEM}_eeg").glob("*.zarr"))
    good = open_signal(store).sensors.set_index("sensor")["sensor_good"]
    assert not good["E2"] and good.drop("E2").all()


def test_all_channels_flat(only_one_fails, bids):
    samples(bids)[:] = 3.0
    only_one_fails(bids, "every channel is bad", f"{STEM}_eeg.vhdr", "4 channels")


# --- fMRI ----------------------------------------------------------------------------------------

BOLD = """\
[study]
name = "blocks"
[plan.stimuli.word]
[embed.word]
[train.windows]
delay = 4.0
reduce = "mean"
"""


@pytest.fixture
def blocks(tmp_path):
    """One person, two runs of 40 small volumes."""
    import nibabel

    root = tmp_path / "blocks"
    rng = np.random.default_rng(3)
    for run in "12":
        stem = root / "sub-01" / "func" / f"sub-01_task-words_run-{run}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        data = (500 + 10 * rng.normal(size=(5, 5, 4, 40))).astype("f4")
        image = nibabel.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
        image.header.set_zooms((3.0, 3.0, 3.0, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, f"{stem}_bold.nii.gz")
        Path(f"{stem}_bold.json").write_text('{"RepetitionTime": 2.0}')
        rows = [f"{4 + 16 * k}\t8\t{word}" for k, word in enumerate(("cat", "dog", "bus", "car"))]
        Path(f"{stem}_events.tsv").write_text("onset\tduration\ttrial_type\n" + "\n".join(rows))
    return root


def test_whole_blocks_can_be_used(command, blocks):
    assert command(blocks, text=BOLD, until="evaluate")[0] == 0


def test_no_repetition_time(command, blocks):
    import nibabel

    for image in blocks.rglob("*_bold.nii.gz"):
        loaded = nibabel.load(image)
        changed = nibabel.Nifti1Image(np.asarray(loaded.dataobj), loaded.affine)
        changed.header.set_zooms((3.0, 3.0, 3.0, 0.0))
        nibabel.save(changed, image)
        image.with_name(image.name.replace(".nii.gz", ".json")).unlink()
    code, text = command(blocks, text=BOLD)
    assert code == 2
    told(text, "epetition time", "_bold.nii.gz")


def test_repetition_times_that_contradict(only_one_fails, blocks):
    image = blocks / "sub-01" / "func" / "sub-01_task-words_run-2_bold.nii.gz"
    image.with_name(image.name.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 3.0}')
    name = "sub-01_task-words_run-2_bold"
    only_one_fails(
        blocks,
        "repetition times disagree",
        "header 2 s, sidecar 3 s",
        name=name,
        others=1,
        text=BOLD,
    )


def test_mask_of_another_grid(only_one_fails, blocks):
    import nibabel

    shifted = np.diag([3.0, 3.0, 3.0, 1.0]) + 2.0 * np.eye(4, k=3)
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 4), "u1"), shifted), blocks / "mask.nii.gz")
    only_one_fails(
        blocks, "the mask is not on the grid of the recording", "mask.nii.gz", "affine",
        name="sub-01_task-words_run-2_bold", others=0,
        text=BOLD + '[preprocess.bold]\nmask = "mask.nii.gz"\n',
    )  # fmt: skip


# --- the output ----------------------------------------------------------------------------------


def test_output_is_a_file(command, bids, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, text = command(bids, "--out", str(tmp_path / "taken"))
    assert code == 2
    told(text, "the output folder cannot be written", str(tmp_path / "taken"))
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_may_not_be_written(command, bids, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    code, text = command(bids, "--out", str(tmp_path / "closed" / "out"))
    assert code == 2
    told(text, "the output folder cannot be written")


def test_ledger_that_cannot_be_written(command, bids, tmp_path):
    (tmp_path / "book").write_text("mine")
    code, text = command(bids, "--ledger", str(tmp_path / "book"), until="report")
    assert code == 1
    told(text, "the ledger could not be written", str(tmp_path / "book"), "--ledger")
    assert (tmp_path / "book").read_text() == "mine"
    assert len(list((tmp_path / "out").glob("evaluate/*/*.zarr/COMMITTED"))) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"file systems may not be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(command, bids, small_disk):
    out = small_disk / "out"
    assert command(bids, "--out", str(out), until="plan")[0] == 0
    kept = [store for store in out.glob("*/*/*.zarr") if verify_store(store) == []]
    assert kept
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(b"x" * (free - 150_000))
    code, text = command(bids, "--out", str(out))
    assert code == 1
    told(text, "not enough free space for the store", "bytes free")
    assert all(verify_store(store) == [] for store in kept)
    (small_disk / "ballast").unlink()
    assert command(bids, "--out", str(out))[0] == 0


def test_full_disk_below_the_ledger(command, bids, small_disk):
    (small_disk / "ledger").mkdir()
    with open(small_disk / "ballast", "wb", buffering=0) as file:
        while file.write(b"x" * 4096) == 4096:
            if not shutil.disk_usage(small_disk).free:
                break
    code, text = command(bids, "--ledger", str(small_disk / "ledger"), until="report")
    assert code == 1
    told(text, "the ledger could not be written", str(small_disk / "ledger"), "No space left")


def test_disk_that_is_full_to_the_last_byte(command, bids, small_disk):
    out = small_disk / "out"
    assert command(bids, "--out", str(out), until="plan")[0] == 0
    ballast = os.open(small_disk / "ballast", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while os.write(ballast, b"x" * 4096):
            pass
    os.close(ballast)
    code, text = command(bids, "--out", str(out))
    assert code == 1
    told(text, str(out), "No space left")
    (small_disk / "ballast").unlink()
    assert command(bids, "--out", str(out))[0] == 0


def test_earlier_results_survive_bad_input(command, bids, tmp_path, stores_in):
    assert command(bids)[0] == 0
    before = stores_in(tmp_path / "out")
    assert before
    content = samples(bids).copy()
    samples(bids)[700:720, 2] = np.nan
    assert command(bids)[0] == 2
    after = stores_in(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    samples(bids)[:] = content
    code, text = command(bids)
    assert code == 0 and "up to date" in text
