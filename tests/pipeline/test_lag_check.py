"""`check` tells onsets that lie beside the responses, before anything is run."""

from __future__ import annotations

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.simulate import simulate_tiny


def test_f20_check_tells_planted_shifts(tmp_path):
    data = tmp_path / "data"
    simulate_tiny(data, modalities=("eeg", "bold"), snr=0.5, seed=3, n_pictures=30)
    for name in ("demo_eeg", "demo_fmri"):
        found = [f for f in pipeline.check(load_recipe(name), data) if "response" in f.text]
        assert [f.severity for f in found] == ["note"] and "as expected" in found[0].text
    for table in data.rglob("*_events.tsv"):
        lines = table.read_text().splitlines()
        rows = [line.split("\t", 1) for line in lines[1:]]
        shift = 4.0 if "func" in table.parts else 0.5
        moved = [f"{float(onset) + shift}\t{rest}" for onset, rest in rows]
        table.write_text("\n".join([lines[0], *moved]) + "\n")
    found = pipeline.check(load_recipe("demo_fmri"), data)
    (told,) = [f for f in found if f.severity == "warning"]
    assert "response peaks 2 s after onset, expected 4-7 s: onsets may be shifted" in told.text
    # The device's triggers are there: they win, and the response is where it should be.
    found = pipeline.check(load_recipe("demo_eeg"), data)
    assert any("the device's triggers are used" in f.text for f in found if f.severity == "warning")
    assert any("as expected" in f.text for f in found)
    kept = load_recipe("demo_eeg", ["plan.event_source=table"])
    texts = [f.text for f in pipeline.check(kept, data)]
    assert any("s before onset, expected 0.05-0.6 s: onsets may be shifted" in t for t in texts)
