"""Run by test_resume.py: trains a study and kills itself, as `kill -9` would, in mid-epoch.

``python kill_fits.py RECIPE DATA OUT BATCH`` ends by SIGKILL after that many batches of networks.
"""

from __future__ import annotations

import os
import signal
import sys

from braindecode_pipe import pipeline
from braindecode_pipe.fitting import loop
from braindecode_pipe.recipe import load_recipe


def main() -> None:
    recipe, data, out, last = sys.argv[1:]
    real, left = loop.fit, int(last)

    def fit(*args, on_batch, **settings):
        def count(*position):
            nonlocal left
            on_batch(*position)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return real(*args, on_batch=count, **{**settings, "save_every_s": 0.0})

    loop.fit = fit
    sys.exit(pipeline.run(load_recipe(recipe), data, out, until="train", quiet=True).exit_code)


if __name__ == "__main__":
    main()
