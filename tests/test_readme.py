"""What README.md says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.evaluate import metrics
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.simulate.dataset import simulate_tiny

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = sorted(file.stem for file in (ROOT / "pipelines").glob("*.toml"))
COMMANDS = sorted(set(re.findall(r"^(?:.*`)?braindecode-pipe ([a-z]+)", README, re.MULTILINE)))
HELP = "braindecode-pipe --help"
STAGE_LINE = re.search(r"Every stage is a command of its own: (.*)", README)[0]


def table_under(heading: str) -> list[list[str]]:
    """Cells of the table below a heading."""
    text = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_python_blocks_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    namespace: dict = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md, block {number + 1}", "exec"), namespace)  # noqa: S102
    assert "ridge" in capsys.readouterr().out


def test_commands_are_found_in_the_text():
    assert {"init", "check", "run", "fetch"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "command", sorted({*COMMANDS, *names(STAGE_LINE)} - {"braindecode-pipe --help"})
)
def test_every_command_exists(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"braindecode-pipe {command}" in capsys.readouterr().out


def test_options_exist(capsys):
    used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", "\n".join(
        line for line in README.splitlines() if line.startswith("braindecode-pipe ")
    )))  # fmt: skip
    assert {"--data", "--out", "--set", "--dry-run"} <= used
    shown = ""
    for command in COMMANDS:
        main([command, "--help"])
        shown += capsys.readouterr().out
    assert [option for option in sorted(used) if option not in shown] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test"} <= named <= targets


def test_every_recipe_is_listed():
    listed = [name for row in table_under("Studies that come with it") for name in names(row[0])]
    assert sorted(listed) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_and_is_named_like_its_file(name):
    recipe = load_recipe(ROOT / "pipelines" / f"{name}.toml")
    assert recipe == load_recipe(name)
    assert recipe.study.name == name
    assert recipe.study.title and recipe.study.description
    assert recipe.split.by == "none" or (recipe.embed and recipe.train.decoders)


def test_fields_of_metrics_json(tmp_path):
    simulate_tiny(tmp_path / "data")
    recipe = load_recipe(
        "demo_eeg",
        ['train.decoders=["ridge"]', 'embed.picture.model="pixels"', "split.test_folds=1",
         "evaluate.permutations=50", "evaluate.bootstrap=50", "evaluate.top_k=[1,5,10]"],
    )  # fmt: skip
    result = pipeline.run(
        recipe, tmp_path / "data", tmp_path / "out", until="evaluate", quiet=True,
        ledger=tmp_path / "ledger",
    )  # fmt: skip
    records = json.loads((result.rows[-1].path / "metrics.json").read_text())
    assert isinstance(records, list) and records
    rows = table_under("metrics.json")
    fields = [field for row in rows for field in names(row[0])]
    assert {"metric", "value", "ci_low", "chance", "p_value", "data_origin"} <= set(fields)
    for record in records:
        assert set(fields) <= set(record)
        assert record["data_origin"] in names(next(r[1] for r in rows if "data_origin" in r[0]))
    listed = set(names(rows[0][1]))
    assert {"identification_accuracy", "top1", "median_rank", "pair_accuracy"} <= listed
    known = {record["metric"] for record in records}
    # The others belong to closed sets of stimuli, to two candidates, or to longer lists.
    assert {"top1", "median_rank", "pair_accuracy"} <= known
    assert [name for name in listed if name not in str(metrics.__doc__)] == []
    assert {record["subject"] for record in records} >= {"all"}
