"""The course of a unit: where its fits keep what they have, who watches them, who writes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braindecode_pipe.recipe import Variant
from braindecode_pipe.train.curves import Curves

LOG = logging.getLogger("braindecode_pipe.train")


class Course:
    """All fits of one unit, as a context: what was kept on the way goes when it ends well.

    Parameters
    ----------
    variant : Variant
    folder : path, optional
        Networks keep checkpoints and finished numbers there, so that a unit that was stopped goes
        on from them. Each number of processes has its own: their fits differ in the last bits.
    tensorboard : path, optional
        Networks write their curves there.

    Attributes
    ----------
    writes : False in all but the first of the processes that share the fits
    attrs : what the store says of the processes: how many, where it was not one
    """

    def __init__(
        self, variant: Variant, folder: Path | None = None, tensorboard: Path | None = None
    ) -> None:
        self.variant, self.writes, self.attrs = variant, True, {}
        self._root = self._folder = None
        self._curves: Curves | None = None
        if variant.seed is None:
            return
        from braindecode_pipe.fitting.world import World

        world = World.current()
        self.writes = world.rank == 0
        self.attrs = {"processes": world.size} if world.size > 1 else {}
        if folder is not None:
            self._root, self._folder = Path(folder), Path(folder) / f"processes-{world.size}"
        if tensorboard is not None and self.writes:
            self._curves = Curves(tensorboard)

    def __enter__(self) -> Course:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._curves is not None:
            self._curves.close()
        if kind is None and self.writes and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def arguments(self, where: str, epochs: int) -> dict[str, Any]:
        """Keyword arguments of ``BrainDecoder.fit`` for the fit that is stored.

        Parameters
        ----------
        where : names the unit to who watches
        epochs : int, the most that there will be
        """
        if self.variant.seed is None:
            return {}
        seen: list[dict[str, float]] = []

        def on_batch(number: int, n: int, loss: float) -> None:
            before = f" ({told(seen[-1])})" if seen else ""
            LOG.info("batch %d of %d, loss %.3g%s: %s", number, n, loss, before, where)

        def on_epoch(record: dict[str, float]) -> None:
            seen[:] = [record]
            LOG.info("%s of %d: %s", told(record), epochs, where)
            if self._curves is not None:
                self._curves.add(record)

        folder = None if self._folder is None else self._folder / "fit"
        return {"folder": folder, "on_epoch": on_epoch, "on_batch": on_batch}

    def keep(self, name: str, make: Callable[[Path | None], float]) -> float:
        """A number that ``make`` finds by a fit in the folder it is given, found once.

        The number is kept until the unit ends; the folder goes when it is found.
        """
        if self._folder is None:
            return make(None)
        file, folder = self._folder / f"{name}.json", self._folder / name
        if file.is_file():
            return float(json.loads(file.read_text(encoding="utf-8")))
        value = make(folder)
        if self.writes:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".tmp")
            aside.write_text(json.dumps(value), encoding="utf-8")
            aside.replace(file)
            shutil.rmtree(folder, ignore_errors=True)
        return value


def told(record: dict[str, float]) -> str:
    """An epoch in a few words: number, loss, and validation top-1 where there was validation."""
    value = record["validation_top1"]
    score = "" if value != value else f"top-1 {100 * value:.0f} %, "
    return f"loss {record['train_loss']:.3g}, {score}epoch {record['epoch']:.0f}"
