"""Figures about tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import COLOURS, MUTED, RULE, canvas, picture, short

STEP = 5.0  # standard deviations between the traces of neighbouring sensors


def rebuilt(
    time: np.ndarray,
    original: np.ndarray,
    copy: np.ndarray,
    names: Sequence[str],
    alt: str,
    caption: str,
) -> Figure:
    """Traces and their copies side by side with what the copies leave over.

    Parameters
    ----------
    time : (n_times,) [s]
    original, copy : (n_sensors, n_times), in standard deviations
    """
    n = len(names)
    with canvas(8.2, 0.9 + 0.5 * n, ncols=2, sharey=True) as (figure, axes):
        height = -STEP * np.arange(n)[:, None]
        axes[0].plot(time, (original + height).T, color=MUTED, lw=0.8, alpha=0.8)
        axes[0].plot(time, (copy + height).T, color=COLOURS[0], lw=1.1)
        axes[1].plot(time, (original - copy + height).T, color=COLOURS[1], lw=0.8)
        for ax, title in zip(axes, ("signal (grey) and rebuilt (blue)", "residual")):
            ax.set_title(title)
            ax.set_xlabel("time [s]")
            ax.set_xlim(time[0], time[-1])
            for level in height[:, 0]:
                ax.axhline(level, color=RULE, lw=0.5, zorder=0)
            ax.spines["left"].set_visible(False)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(height[:, 0], [short(name, 14) for name in names])
        return picture(figure, alt, caption, few_colours=True)
