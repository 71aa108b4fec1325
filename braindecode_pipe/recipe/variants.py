"""What a decoder of a recipe is fitted as: with each seed, and on each piece of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe.training import Network, TrainSection, WindowSection

Piece = tuple[float, float]
# Begins and ends of pieces are multiples of decimal steps; this much is rounding [s].
_ROUNDING = 6


@dataclass(frozen=True)
class Variant:
    """A decoder with one seed on one piece of the window: what a unit of ``train`` fits.

    Attributes
    ----------
    decoder : as the recipe names it
    seed : int, or None for linear decoders, which draw nothing
    number : which of the seeds, from 0
    window : (begin, end) [s] of a piece, or None for the whole window
    """

    decoder: str
    seed: int | None = None
    number: int = 0
    window: Piece | None = None

    @property
    def label(self) -> str:
        """Its name: ``conv``, ``conv.s1`` for the second seed, ``conv.t0.1to0.35`` for a piece.

        Letters, digits, dot and minus only, so that it can name folders.
        """
        label = f"{self.decoder}.s{self.number}" if self.number else self.decoder
        if self.window is None:
            return label
        begin, end = (f"{edge:.{_ROUNDING}f}".rstrip("0").rstrip(".") for edge in self.window)
        return f"{label}.t{begin}to{end}"

    @property
    def role(self) -> Literal["decoder", "seed", "piece"]:
        """``decoder``: the one that stands for its name; a further ``seed``; or a ``piece``."""
        if self.window is not None:
            return "piece"
        return "seed" if self.number else "decoder"


def variant(
    section: TrainSection, decoder: str, seed: int | None = None, window: Piece | None = None
) -> Variant:
    """A decoder with a seed (default: the first) on a piece of the window (default: all of it)."""
    if decoder not in get_args(Network):
        return Variant(decoder, window=window)
    seed = section.seed if seed is None else seed
    return Variant(decoder, seed, seed - section.seed, window)


def variants(section: TrainSection, decoder: str) -> list[Variant]:
    """All that a decoder is fitted as: the whole window with every seed, then every piece.

    Pieces take the first seed, so that a curve over time costs one fit for each of its points.
    """
    whole = variant(section, decoder)
    seeds = range(1, section.seeds if whole.seed is not None else 1)
    others = [variant(section, decoder, section.seed + number) for number in seeds]
    return [
        whole,
        *others,
        *(variant(section, decoder, window=piece) for piece in pieces(section.windows)),
    ]


def pieces(window: WindowSection) -> list[Piece]:
    """Pieces ``(begin, end)`` [s] of the window that lie whole in it; none without ``sliding_s``.

    Raises
    ------
    RecipeError
        When the window's end is not fixed, or it is no longer than a piece.
    """
    if window.sliding_s is None:
        return []
    length = float("nan") if window.tmax is None else window.tmax - window.tmin
    if not length > window.sliding_s:
        raise RecipeError(
            "the window cannot be divided into pieces",
            expected=f"[train.windows] tmax - tmin longer than sliding_s = {window.sliding_s:g} s",
            found="no tmax" if window.tmax is None else f"{length:g} s",
            remedy="give tmax, or a shorter sliding_s",
        )
    step = window.sliding_step_s or window.sliding_s
    n = int((length - window.sliding_s) / step + 1e-9) + 1
    begins = (window.tmin + number * step for number in range(n))
    return [(_rounded(begin), _rounded(begin + window.sliding_s)) for begin in begins]


def _rounded(seconds: float) -> float:
    return round(seconds, _ROUNDING) + 0.0  # 0, not -0
