"""Run by test_executor.py in two processes: what they do together, and what one of them cannot."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import distributed

from braindecode_pipe.errors import DataError
from braindecode_pipe.executor import Executor, Task, follow
from braindecode_pipe.fitting.team import team
from braindecode_pipe.fitting.world import World


def work(folder: str, name: str, fails: int | None = None, how: str = "", values=()) -> None:
    """Sum over the processes; the one numbered ``fails`` does not get there."""
    rank = distributed.get_rank()
    if rank == fails:
        if how == "foreseen":
            raise DataError("bad recording", file="three.edf", remedy="mend it")
        raise KeyError("five")
    total = torch.tensor([rank + 1.0])
    distributed.all_reduce(total)
    facts = [float(total), torch.get_num_threads(), len(values), World.current().size]
    Path(folder, f"{name}-{rank}").write_text(str(facts))


def alone(folder: str, name: str) -> None:
    Path(folder, name).write_text(os.environ["RANK"])


def main(folder: str) -> None:
    crew = team()
    if crew.rank:
        follow(crew)
        print("left")
        return
    if folder == "dies":
        time.sleep(0.5)
        os._exit(3)
    here = "tests_team_work:"
    task = lambda name, **more: Task(  # noqa: E731
        name, f"{here}work", {"folder": folder, "name": name, **more}, 2, True
    )
    outcomes = {}
    with Executor(team=crew) as executor:
        executor.run(
            [
                task("first", values=list(range(1_000_000))),
                task("foreseen", fails=1, how="foreseen"),
                task("unforeseen", fails=1),
                Task("alone", f"{here}alone", {"folder": folder, "name": "alone"}),
                task("own", fails=0, how="foreseen"),
                task("last"),
            ],
            lambda o: outcomes.update({o.name: o}),
        )
    crew.dismiss()
    for outcome in outcomes.values():
        print(outcome.name, outcome.bad_input, repr(outcome.error))


if __name__ == "__main__":
    sys.modules["tests_team_work"] = sys.modules["__main__"]
    main(sys.argv[1])
