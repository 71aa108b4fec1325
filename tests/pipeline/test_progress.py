"""Progress beside the bar of a stage."""

from __future__ import annotations

import json
import logging
import time

from braindecode_pipe.pipeline.progress import Bars, FitLogs


def epoch(number, top1=0.25):
    return json.dumps({"epoch": number, "train_loss": 2.5, "validation_loss": float("nan"),
                       "validation_top1": top1}) + "\n"  # fmt: skip


def test_epochs_of_other_processes_are_told_as_their_logs_grow(tmp_path):
    folder = tmp_path / "word_conv_fold" / "key.fit"
    told = []
    logs = FitLogs([folder, tmp_path / "other" / "key.fit"], told.append, every_s=1e9)
    logs.look()
    log = folder / "processes-1" / "fit" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(epoch(1))
    logs.look()
    logs.look()
    log.write_text(epoch(1) + epoch(2, float("nan")))
    logs.look()
    log.write_text("")  # just being written
    logs.look()
    logs.stop()
    assert told == ["loss 2.5, top-1 25 %, epoch 1: word_conv_fold",
                    "loss 2.5, epoch 2: word_conv_fold"]  # fmt: skip


def test_a_bar_that_watches_shows_the_last_epoch(tmp_path, monkeypatch):
    log = tmp_path / "unit" / "key.fit" / "processes-1" / "fit" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(epoch(3))
    monkeypatch.setattr(FitLogs.__init__, "__defaults__", (0.01,))
    with Bars().stage("train", 1) as bar:
        bar.watch([tmp_path / "unit" / "key.fit"])
        until = time.monotonic() + 20
        while not bar._bar.tasks[0].fields["unit"] and time.monotonic() < until:
            time.sleep(0.01)
        assert bar._bar.tasks[0].fields["unit"] == "loss 2.5, top-1 25 %, epoch 3: unit"


def test_what_a_room_says_stands_beside_its_bar(capsys):
    log = logging.getLogger("braindecode_pipe.embed")
    with Bars().stage("embed", 2) as bar:
        log.info("word: 32 of 640 stimuli, 8 per second, ends at 12:00:00")
        assert bar._bar.tasks[0].fields["unit"].startswith("word: 32 of 640 stimuli, 8 per second")
        bar.advance("word", "")
    assert log.handlers == [] and log.level == logging.NOTSET
    assert capsys.readouterr().out == ""
