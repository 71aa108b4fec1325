"""Run by test_kill.py: ends a run at chosen file operations of one stage, again and again.

``python kill_runs.py RECIPE DATA OUT LEDGER STAGE N SEED`` kills ``run`` N times while it writes
stores of STAGE, at random operations, and then lets it finish; it prints the number of kills.
Children are forked, so that each kill is a process that really ends, without starting Python anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.store import write_hook


def run_until(arguments: tuple[str, ...], stage: str, last: int) -> int:
    """Run in a child that kills itself before operation ``last`` of ``stage``; its exit status."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, path: Path) -> None:
            nonlocal count
            count += f"/{stage}/" in path.as_posix()
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        recipe, data, out, ledger = arguments
        with write_hook(hook):
            result = pipeline.run(load_recipe(recipe), data, out, quiet=True, ledger=ledger)
        os._exit(result.exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    *arguments, stage, n_kills, seed = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    out, killed, bound = Path(arguments[2]), 0, 120
    while killed < int(n_kills):
        last = int(rng.integers(1, bound))
        code = run_until(tuple(arguments), stage, last)
        killed += code == -signal.SIGKILL
        if code == 0:
            # There were fewer operations: from the beginning of this stage once more.
            bound = max(2, last)
            shutil.rmtree(out / stage)
        elif code != -signal.SIGKILL:
            sys.exit(f"the run ended with {code}")
    code = run_until(tuple(arguments), stage, 0)
    print(killed)
    sys.exit(code)


if __name__ == "__main__":
    main()
