"""Progress beside the bar of a stage."""

from __future__ import annotations

import logging

from braindecode_pipe.pipeline.progress import Bars


def test_what_a_room_says_stands_beside_its_bar(capsys):
    log = logging.getLogger("braindecode_pipe.embed")
    with Bars().stage("embed", 2) as bar:
        log.info("word: 32 of 640 stimuli, 8 per second, ends at 12:00:00")
        assert bar._bar.tasks[0].fields["unit"].startswith("word: 32 of 640 stimuli, 8 per second")
        bar.advance("word", "")
    assert log.handlers == [] and log.level == logging.NOTSET
    assert capsys.readouterr().out == ""
