"""The table of retrieval: every metric once, drawn pools with their interval, both directions."""

from __future__ import annotations

from types import SimpleNamespace

from braindecode_pipe.report.retrieval import retrieval_table


def record(metric, value, **more):
    return {"decoder": "ridge", "subject": "all", "metric": metric, "value": value, "ci_low": 0.1,
            "ci_high": 0.3, "ci_level": 0.9, "chance": 0.05, "p_value": 0.01, "n_queries": 40,
            "n_candidates": 20, "n_candidates_min": 20, "candidates": "test", "aggregate": "none",
            "direction": "query", "draws": None, **more}  # fmt: skip


def table_of(*records):
    found = list(retrieval_table(SimpleNamespace(records=list(records), headline="ridge")))
    return found[0] if found else None


def test_rows_are_the_metrics_of_the_decoder_over_everybody():
    table = table_of(
        record("mrr", 0.2), record("top10", 0.25), record("mrr", 0.9, decoder="conv"),
        record("mrr", 0.9, subject="01"), record("mrr", 0.9, window_centre=0.1),
        record("mrr", 0.9, control="noise"),
    )  # fmt: skip
    assert [c.name for c in table.columns] == [
        "Metric", "Value", "90 % interval", "Chance", "p", "Candidates"
    ]  # fmt: skip
    assert table.rows == (
        ("Mean reciprocal rank", "0.2", "0.1 – 0.3", "0.05", "0.01", "20"),
        ("Top-10 accuracy", "25.0 %", "10.0 – 30.0 %", "5.0 %", "0.01", "20"),
    )
    assert (
        "40 single trials" in table.notes[0]
        and "Candidates: the stimuli of the test" in table.notes[0]
    )


def test_drawn_pools_and_the_other_direction_have_columns():
    drawn = {"draws": 30, "draws_mean": 0.21, "draws_low": 0.2, "draws_high": 0.22}
    table = table_of(
        record("top1_of_50", 0.2, **drawn),
        record("backward_mrr", 0.2, direction="candidate", n_candidates_min=18),
    )
    assert [c.name for c in table.columns][-2:] == ["Over draws", "Direction"]
    assert table.rows[0][-2:] == ("21.0 % (20.0 – 22.0 %)", "response to stimulus")
    assert table.rows[1][-3:] == ("18 – 20", "–", "stimulus to response")
    assert "30 draws" in table.notes[1]


def test_averages_and_presets_are_told():
    note = table_of(record("mrr", 0.2, protocol="nice", aggregate="repetitions",
                           n_averaged=80)).notes[0]  # fmt: skip
    assert note.startswith("Protocol “nice”.") and "means over repetitions, of 80 trials" in note


def test_no_record_no_table():
    assert table_of(record("mrr", 0.2, decoder="conv")) is None
