"""The ledger: where it lies, what it keeps, several writers, torn lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from braindecode_pipe.errors import CorruptStoreError, StoreLockedError
from braindecode_pipe.evaluate import ledger
from braindecode_pipe.evaluate.ledger import append, ledger_dir, read, summary


def entry(configuration="c1", value=0.5, **changes):
    return {
        "configuration": configuration, "study": "s", "decoder": "ridge", "embedding": "e",
        "metric": "top1", "value": value, "n": 96, "n_candidates": 8, "candidates": "test",
        "aggregate": "none", **changes,
    }  # fmt: skip


def test_entries_come_back_in_order_and_only_once(tmp_path):
    assert read(tmp_path, "h") == []
    assert append(tmp_path, "h", **entry())
    assert append(tmp_path, "h", **entry("c2", 0.7))
    assert append(tmp_path, "h", **entry("c1", 0.6, decoder="mlp"))
    assert not append(tmp_path, "h", **entry("c1", 0.9))
    assert append(tmp_path, "other", **entry())
    assert read(tmp_path, "h") == [
        entry(), entry("c2", 0.7), entry("c1", 0.6, decoder="mlp"),
    ]  # fmt: skip


def test_where_it_lies(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    assert ledger_dir(data, "mine") == Path("mine")
    monkeypatch.setenv("BRAINDECODE_PIPE_LEDGER", str(tmp_path / "env"))
    assert ledger_dir(data) == tmp_path / "env"
    assert ledger_dir(data, "mine") == Path("mine")
    monkeypatch.delenv("BRAINDECODE_PIPE_LEDGER")
    assert ledger_dir(data) == data / "derivatives" / "braindecode_pipe" / "ledger"
    assert list(data.iterdir()) == []
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert ledger_dir(data) == tmp_path / "xdg" / "braindecode_pipe" / "ledger"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert ledger_dir(data) == tmp_path / ".local" / "share" / "braindecode_pipe" / "ledger"


def test_torn_last_line_is_no_entry_and_is_replaced(tmp_path):
    append(tmp_path, "h", **entry())
    file = tmp_path / "h.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"configuration": "c2", "dec')
    assert read(tmp_path, "h") == [entry()]
    append(tmp_path, "h", **entry("c2"))
    assert read(tmp_path, "h") == [entry(), entry("c2")]
    assert file.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in file.read_text().splitlines())


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '{"configuration": "c"}'])
def test_any_other_broken_line_is_named(tmp_path, line):
    append(tmp_path, "h", **entry())
    file = tmp_path / "h.jsonl"
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(CorruptStoreError, match=r"no entry(.|\n)*h.jsonl, line 1"):
        read(tmp_path, "h")


_WRITER = """
import sys
from braindecode_pipe.evaluate.ledger import append
for i in range(25):
    append(sys.argv[1], "h", configuration=f"{sys.argv[2]}-{i}", study="s", decoder="d",
           embedding="e", metric="top1", value=0.5, n=1, n_candidates=2)
    append(sys.argv[1], "h", configuration=f"both-{i}", study="s", decoder="d",
           embedding="e", metric="top1", value=0.5, n=1, n_candidates=2)
"""


def test_concurrent_writers_lose_and_double_nothing(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), name]) for name in "ab"
    ]
    assert [w.wait(timeout=120) for w in writers] == [0, 0]
    found = [e["configuration"] for e in read(tmp_path, "h")]
    assert sorted(found) == sorted(f"{name}-{i}" for name in ("a", "b", "both") for i in range(25))


def test_a_lock_that_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_WAIT_S", 0.2)
    append(tmp_path, "h", **entry())
    with (
        FileLock(tmp_path / "h.lock"),
        pytest.raises(StoreLockedError, match="the ledger is in use"),
    ):
        append(tmp_path, "h", **entry("c2"))


def test_f43_summary_counts_every_configuration(tmp_path):
    for i in range(14):
        append(tmp_path, "h", **entry(f"c{i}", i / 20))
    append(tmp_path, "h", **entry("c13", 0.9, decoder="mlp"))
    found = summary(read(tmp_path, "h"), "c13")
    assert found == {
        "number": 14, "count": 14, "scores": 15, "metric": "top1", "best": 0.9, "median": 0.35,
    }  # fmt: skip
    assert summary(read(tmp_path, "h"), "c0")["number"] == 1


def test_f39_summary_compares_equal_candidate_numbers_only():
    entries = [entry("c1", 0.2), entry("c2", 0.9, n_candidates=2), entry("c3", 0.4)]
    found = summary(entries, "c3")
    assert (found["number"], found["count"], found["best"]) == (3, 3, 0.4)
    assert found["median"] == pytest.approx(0.3)


def test_f43_averages_are_not_compared_with_single_trials(tmp_path):
    append(tmp_path, "h", **entry("c1", 0.2))
    append(tmp_path, "h", **entry("c2", 0.9, aggregate="repetitions"))
    append(tmp_path, "h", **entry("c3", 0.8, candidates="prototypes"))
    old = {k: v for k, v in entry("old", 0.3).items() if k not in ("candidates", "aggregate")}
    lines = [*read(tmp_path, "h"), old]
    assert summary(lines, "c1")["best"] == summary(lines, "old")["best"] == 0.3
    assert summary(lines, "c2")["best"] == 0.9
    assert summary(lines, "c3")["count"] == 4


def test_summary_of_a_configuration_without_entry():
    found = summary([entry()], "new")
    assert (found["number"], found["count"], found["best"]) == (None, 1, None)
