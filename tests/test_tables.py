"""Tables of BIDS as people write them, and what repairs make of them."""

from __future__ import annotations

import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.formats.tables import read_cells, repaired_table, table_problems


def test_a_table_is_repaired_as_asked(tmp_path):
    file = tmp_path / "x_events.tsv"
    text = "onset\tduration\ttrial_type\tstim_file\r\n1,5\t-1\tKäse\ta,1.png\r\n2\t0,5\tb\tn/a\r\n"
    file.write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match=r'cp1252(.|\n)*repairs = \["text-encoding"\]'):
        repaired_table(file)
    table = repaired_table(file, ["text-encoding", "decimal-comma", "negative-durations"])
    assert list(table["onset"]) == ["1.5", "2"] and list(table["duration"]) == ["0", "0.5"]
    assert list(table["trial_type"]) == ["Käse", "b"]
    assert list(table["stim_file"]) == ["a,1.png", "n/a"], "commas of words stay"
    assert len(table.attrs["repaired"]) == 3
    kept = repaired_table(file, ["text-encoding"])
    assert list(kept["duration"]) == ["-1", "0,5"] and len(kept.attrs["repaired"]) == 1


def test_a_table_that_cannot_be_repaired(tmp_path):
    file = tmp_path / "x.tsv"
    file.write_text("a\tb\n1\t2\t3\n")
    with pytest.raises(DataError, match="another number of cells"):
        repaired_table(file, ["decimal-comma"])
    file.write_text("onset,duration\n1,2\n")
    assert "no tabs?" in table_problems(file)[0].what
    file.write_text("")
    assert [problem.what for problem in table_problems(file)] == ["an empty table"]
    assert read_cells(file).columns == ()
