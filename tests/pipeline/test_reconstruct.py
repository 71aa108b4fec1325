"""The stage reconstruct among the others: made, kept, run again for its own reasons only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.store import read_file, store_attrs

PICTURES = [f"p{i:02d}" for i in range(12)]
RECIPE = """\
[study]
name = "pictures"
[plan.stimuli.picture]
kind = "image"
column = "trial_type"
[split]
by = "stimulus"
target = "picture"
n_folds = 2
test_folds = 1
overlap = "purge"
[preprocess.emeg]
sfreq = "none"
l_freq = 1.0
h_freq = "none"
scaler = "none"
clamp = "none"
[embed.picture]
model = "colour"
[train.windows]
sfreq = 20.0
[evaluate]
top_k = [1]
bootstrap = 0
permutations = 0
[report]
gallery = 3
qc = false
[reconstruct]
generator = "nearest"
side = 16
permutations = 99
bootstrap = 50
"""


@pytest.fixture(scope="module")
def data(make_recording, tmp_path_factory):
    """One person, two runs of twelve pictures whose colours are in the sensors."""
    write_recording, write_events = make_recording
    root, rng = tmp_path_factory.mktemp("study") / "bids", np.random.default_rng(0)
    colours = rng.random((12, 3))
    for run in ("1", "2"):
        stem = root / "sub-01" / "eeg" / f"sub-01_task-see_run-{run}"
        signal, order = rng.normal(0, 3, (4, 2600)), rng.permutation(12)
        for k, picture in enumerate([*order, *order]):
            signal[:3, k * 100 + 50 : k * 100 + 80] += 20 * (colours[picture, :, None] - 0.5)
        write_recording(stem.with_name(stem.name + "_eeg.vhdr"), signal)
        labels = [f"{PICTURES[p]}.png" for p in [*order, *order]]
        write_events(stem.with_name(stem.name + "_events.tsv"), np.arange(24) + 0.5, labels)
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.9.0"}')
    (root / "stimuli").mkdir()
    for name, colour in zip(PICTURES, colours):
        picture = np.full((24, 24, 3), 255)
        picture[4:20, 4:20] = colour * 255
        Image.fromarray(picture.astype(np.uint8)).save(root / "stimuli" / f"{name}.png")
    return root


def run(data, out, *overrides, **options):
    recipe = parse_recipe(RECIPE, "pictures.toml", overrides)
    return pipeline.run(recipe, data, out, quiet=True, ledger=out / "ledger", **options)


def test_it_runs_after_evaluate_and_for_its_own_reasons(data, tmp_path):
    out = tmp_path / "out"
    result = run(data, out)
    assert [row.error for row in result.failed] == []
    assert result.stages().index("reconstruct") == result.stages().index("evaluate") + 1
    [row] = [row for row in result.rows if row.stage == "reconstruct"]
    assert store_attrs(row.path)["generators"][0]["n_pictures"] == 6
    page = read_file(next(r.path for r in result.rows if r.stage == "report"), "report.html")
    assert b"Best, median and worst of 6 items" in page
    assert run(data, out).up_to_date
    # A setting of the stage, and then the missing generator: nothing before it runs again.
    ran = {r.stage for r in run(data, out, "reconstruct.seed=1").rows if r.status == "done"}
    assert ran == {"reconstruct", "report"}
    failed = run(data, out, "reconstruct.generator=./nowhere")
    assert [(r.stage, r.bad_input) for r in failed.failed] == [("reconstruct", True)]
    assert failed.exit_code == 2 and failed.report is not None


def test_the_command_asks_for_the_stage_where_the_recipe_does_not(data, tmp_path, capsys):
    text = RECIPE.split("[reconstruct]")[0]
    recipe = tmp_path / "pictures.toml"
    recipe.write_text(text)
    out = tmp_path / "out"
    common = [str(recipe), "--data", str(data), "--out", str(out), "--quiet"]
    common += ["--ledger", str(tmp_path / "ledger"), "--set", "reconstruct.side=16"]
    assert main(["reconstruct", *common, "--generator", "nearest"]) == 0
    assert list((out / "reconstruct").glob("picture/*.zarr"))
    assert main(["reconstruct", *common, "--generator", "./nowhere"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(RecipeError, match="asks for no reconstruction"):
        pipeline.run(parse_recipe(text, "x"), data, out, quiet=True, until="reconstruct")
