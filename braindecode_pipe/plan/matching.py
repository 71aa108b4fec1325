"""An event table against the triggers of the recording device: which row is which trigger.

Arrays in, arrays out. Rows are paired with triggers by their intervals, so that neither the origin
of the table's clock nor its rate has to be known; where intervals cannot tell, labels may.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

MAX_CELLS = 25_000_000  # of the table of the alignment: five bytes each
_SKIP_ROW, _SKIP_TRIGGER, _BREAK = 1.0, 0.25, 4.0
# Steps (rows, triggers) from one pair to the next whose interval is compared.
_STEPS = ((1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 1), (3, 1), (4, 1), (2, 2), (2, 3))
_FIRST, _ANYWHERE = -1, len(_STEPS)
MAX_SHIFT = 5
_MIN_TRIALS = 10


@dataclass(frozen=True)
class Clock:
    """``device = offset + (1 + drift) * table``, fitted to pairs.

    Attributes
    ----------
    offset : [s]
    drift : [s/s]
    residual_sd : [s], robust: 1.4826 times the median absolute residual
    """

    offset: float
    drift: float
    residual_sd: float

    def __call__(self, table: np.ndarray) -> np.ndarray:
        return self.offset + (1 + self.drift) * np.asarray(table, float)


def align(table: np.ndarray, device: np.ndarray, tolerance: float = 0.02) -> np.ndarray:
    """Pairs of rows and triggers, by their intervals.

    Both sequences keep their order. Among all ways to pair them the cheapest is found by dynamic
    programming: a row without trigger costs 1, a trigger without row 0.25, and two pairs that
    follow one another ``min((d / tolerance)^2, 4)``, ``d`` the difference of their intervals.
    Where intervals cannot tell (all are alike), pairs at equal times win.

    Parameters
    ----------
    table, device : (n,) and (m,) [s], not decreasing
    tolerance : [s]

    Returns
    -------
    (n_pairs, 2) int: row of ``table``, position in ``device``, both increasing
    """
    n, m = len(table), len(device)
    if not n or not m:
        return np.zeros((0, 2), np.int64)
    back = np.full((n, m), _FIRST, np.int8)
    reduced = np.empty((n, m), np.float32)  # cost without what lies before is skipped anyway
    recent: deque[np.ndarray] = deque(maxlen=max(a for a, _ in _STEPS))
    cheapest = np.full(m, np.inf)
    column = np.arange(m)
    for i in range(n):
        now = _SKIP_ROW * i + _SKIP_TRIGGER * column
        broken = np.full(m, np.inf)
        broken[1:] = cheapest[:-1] + _SKIP_ROW * (i - 1) + _SKIP_TRIGGER * column[:-1] + _BREAK
        back[i, broken < now] = _ANYWHERE
        now = np.minimum(now, broken)
        for code, (a, b) in enumerate(_STEPS):
            if a > i or b > m - 1:
                continue
            gap = (device[b:] - device[:-b]) - (table[i] - table[i - a])
            step = np.minimum((gap / tolerance) ** 2, _BREAK)
            tried = recent[-a][:-b] + step + _SKIP_ROW * (a - 1) + _SKIP_TRIGGER * (b - 1)
            back[i, b:][tried < now[b:]] = code
            now[b:] = np.minimum(now[b:], tried)
        # In total less than any skip, so that it only decides between equals.
        now = now + 0.2 / max(n, m) * np.minimum(np.abs(device - table[i]), 1.0)
        recent.append(now)
        own = now - _SKIP_ROW * i - _SKIP_TRIGGER * column
        reduced[i] = own
        cheapest = np.minimum(cheapest, np.minimum.accumulate(own))
    return _trace(back, reduced)


def _trace(back: np.ndarray, reduced: np.ndarray) -> np.ndarray:
    """Pairs on the cheapest path; what follows the last pair is skipped as well."""
    at = _smallest(reduced)
    pairs = [at]
    while (code := back[at]) != _FIRST:
        i, j = at
        if code == _ANYWHERE:
            at = _smallest(reduced[:i, :j])
        else:
            at = (i - _STEPS[code][0], j - _STEPS[code][1])
        pairs.append(at)
    return np.array(pairs[::-1], np.int64)


def _smallest(values: np.ndarray) -> tuple[int, int]:
    i, j = np.unravel_index(int(np.argmin(values)), values.shape)
    return int(i), int(j)


def fit_clock(table: np.ndarray, device: np.ndarray) -> Clock:
    """Offset and rate of the device's clock against the table's, by robust regression.

    Tukey's biweight (c = 4.685), iterated from the slope that is the median of those between the
    first and the last third of the pairs. With fewer than 3 pairs, or no time between them, the
    drift is 0.
    """
    x, y = np.asarray(table, float), np.asarray(device, float)
    if len(x) < 3 or np.ptp(x) == 0:
        difference = y - x
        offset = float(np.median(difference)) if len(x) else 0.0
        return Clock(offset, 0.0, _spread(difference - offset))
    third = max(1, len(x) // 3)
    x0 = float(x.mean())
    run = x[-third:] - x[:third]
    rise = (y - x)[-third:] - (y - x)[:third]
    slope = float(np.median(rise[run > 0] / run[run > 0])) if (run > 0).any() else 0.0
    centre = float(np.median(y - x - slope * (x - x0)))
    for _ in range(50):
        residual = y - x - centre - slope * (x - x0)
        spread = _spread(residual)
        if spread == 0:
            break
        weight = np.clip(1 - (residual / (4.685 * spread)) ** 2, 0, None) ** 2
        total = weight.sum()
        mx, mr = (weight * (x - x0)).sum() / total, (weight * residual).sum() / total
        moved = weight * (x - x0 - mx)
        power = (moved * (x - x0 - mx)).sum()
        step = (moved * (residual - mr)).sum() / power if power > 0 else 0.0
        slope, centre = slope + step, centre + mr - step * mx
    residual = y - x - centre - slope * (x - x0)
    return Clock(centre - slope * x0, slope, _spread(residual))


def _spread(residual: np.ndarray) -> float:
    if not len(residual):
        return 0.0
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))))


@dataclass(frozen=True)
class LabelShift:
    """By how many trials labels lie beside the codes that belong to them.

    Attributes
    ----------
    shift : label ``i`` belongs to code ``i + shift``
    agreement : share of trials whose code is the usual one of their label, at that shift
    as_given : the same without shift
    """

    shift: int
    agreement: float
    as_given: float


def label_shift(labels: np.ndarray, codes: np.ndarray, max_shift: int = MAX_SHIFT) -> LabelShift:
    """Compare the order of labels with that of codes, without knowing which means which.

    At a shift, every label takes the code that most of its trials have (and, as labels may be
    finer or coarser than codes, every code its label): the agreement is the share of trials that
    have it, in the direction that tells more shifts apart. A shift other than 0 is believed when
    at least 95 % agree there and the agreement as given is lower by over 4 standard errors of a
    share, and below 90 %.

    Parameters
    ----------
    labels, codes : (n,) text
    max_shift : shifts that are tried, in both directions
    """
    labels, codes = np.asarray(labels).astype(str), np.asarray(codes).astype(str)
    n = len(labels)
    shifts = [k for k in range(-max_shift, max_shift + 1) if n - abs(k) >= _MIN_TRIALS]
    if not shifts:
        return LabelShift(0, float("nan"), float("nan"))
    _, label = np.unique(labels, return_inverse=True)
    _, code = np.unique(codes, return_inverse=True)
    tables = []
    for k in shifts:
        own, other = (label[: n - k], code[k:]) if k >= 0 else (label[-k:], code[:k])
        count = np.zeros((label.max() + 1, code.max() + 1))
        np.add.at(count, (own, other), 1)
        tables.append((count.max(1).sum() / len(own), count.max(0).sum() / len(own)))
    shares = np.array(tables)
    score = shares[:, int(np.argmax(np.ptp(shares, axis=0)))]
    zero = shifts.index(0)
    best = min(np.flatnonzero(score >= score.max() - 1e-12), key=lambda i: (abs(shifts[i]), i))
    error = np.sqrt(max(score[best] * (1 - score[best]), 0.25 / n) / n)
    believed = score[best] >= 0.95 and score[zero] < min(0.9, score[best] - 4 * error)
    where = int(best) if believed else zero
    return LabelShift(shifts[where], float(score[where]), float(score[zero]))
