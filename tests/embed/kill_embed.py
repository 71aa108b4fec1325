"""A study's stage embed in a process of its own that is killed with SIGKILL in the middle.

``python kill_embed.py FOLDER MODEL N``: embeds the pictures of FOLDER; after N stimuli have been
passed through the network the process kills itself. N = 0: goes to the end. The number of
stimuli passed is appended to FOLDER/passed.txt as they are.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pandas as pd
import torch

from braindecode_pipe.embed import run, vision
from braindecode_pipe.recipe import EmbedSpec


def main(folder: Path, model: str, last: int) -> None:
    original, passed = vision._batch, 0

    def counted(*arguments):
        nonlocal passed
        if last and passed >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        vectors = original(*arguments)
        passed += len(arguments[1])
        with (folder / "passed.txt").open("a") as stream:
            stream.write(f"{len(arguments[1])}\n")
        return vectors

    vision._batch = counted
    names = sorted(file.name for file in folder.glob("*.png"))
    table = pd.DataFrame(
        {"stimulus": names, "kind": "image", "label": names, "path": names, "onset": float("nan"),
         "offset": float("nan")}
    )  # fmt: skip
    spec = EmbedSpec(model=model, batch_size=8)
    run("t", spec, table, folder, folder / "out.zarr", data_origin="simulated")


if __name__ == "__main__":
    torch.set_num_threads(1)  # bytes depend on the number of threads; the stages fix it
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
