"""Zero-phase FIR filters and a rational change of rate in one streaming pass, in float32.

The kernels are those that MNE and scipy would apply one after the other. Their frequency responses
are multiplied, and every block of samples sees one forward FFT, one product and one short inverse
FFT at the output's rate (overlap-add).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from braindecode_pipe.preprocess.blocks import Source, fill

# Memory for a block of input with the room that its transform needs, as float32.
BLOCK_BYTES = 2**27
# scipy transforms rows in groups of this size several times faster than one by one.
_GROUP = 4
# scipy.signal.resample_poly's filter: 10 zero crossings on each side, Kaiser window, beta 5.
_CROSSINGS, _BETA = 10, 5.0
# A product of responses below this (-100 dB) is taken for zero.
_NOTHING = 1e-5
# Half of mne.filter.notch_filter's default transition bandwidth [Hz].
_NOTCH_TRANSITION = 0.5
# How far the grid of an irrational ratio of rates may leave the nominal one [s].
_DRIFT_S = 1e-6


@dataclass(frozen=True)
class Kernel:
    """Symmetric FIR filters one after the other, then resampling by ``up / down``.

    ``y[k] = sum_n g[k down - n up] (h1 * h2 * ... * x)[n]``: sample ``k`` of the output lies at
    ``k down / up`` input samples, whatever the length. ``g`` is the filter of
    ``scipy.signal.resample_poly`` with its defaults: ``firwin(20 m + 1, 1 / m, kaiser 5.0)`` at
    ``up`` times the input's rate, ``m = max(up, down)``; its half-amplitude point is the lower of
    the two Nyquist frequencies.

    Attributes
    ----------
    taps : tuple of (odd length,) arrays at the input's rate
    up, down : int, coprime
    """

    taps: tuple[np.ndarray, ...] = ()
    up: int = 1
    down: int = 1

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input."""
        return not self.taps and self.up == self.down

    @cached_property
    def half(self) -> int:
        """How far [input samples] an output sample reaches on either side."""
        half = sum((len(h) - 1) // 2 for h in self.taps)
        if self.up != self.down:
            half += -(-_CROSSINGS * max(self.up, self.down) // self.up)
        return half

    @cached_property
    def gain(self) -> float:
        """Response at 0 Hz."""
        return float(np.prod([h.sum() for h in self.taps]))

    def n_out(self, n_times: int) -> int:
        """Length of the output of ``n_times`` samples."""
        return -(-n_times * self.up // self.down)

    def response(self, n_fft: int) -> np.ndarray:
        """Response at the frequencies ``k / n_fft`` of the input's rate, from 0 on.

        Real, float64; it ends where it stays below 1e-5, or at the Nyquist frequency of the input,
        when resampling at twice that of the output.
        """
        if self.up == self.down:
            response = np.ones(n_fft // 2 + 1)
        else:
            response = self._low_pass(n_fft)
        periodic = np.ones(n_fft // 2 + 1)
        for h in self.taps:
            wrapped = np.zeros(n_fft)
            half = (len(h) - 1) // 2
            wrapped[: half + 1] = h[half:]
            wrapped[n_fft - half :] = h[:half]
            periodic *= np.fft.rfft(wrapped).real
        at = np.arange(len(response)) % n_fft
        response *= periodic[np.minimum(at, n_fft - at)]
        above = np.flatnonzero(np.abs(response) > _NOTHING * np.abs(response).max())
        return response[: above[-1] + 1]

    def _low_pass(self, n_fft: int) -> np.ndarray:
        """Response of ``g`` at ``k / n_fft``, up to twice the half-amplitude point."""
        from scipy.signal import ZoomFFT, firwin

        fastest = max(self.up, self.down)
        half = _CROSSINGS * fastest
        h = firwin(2 * half + 1, 1 / fastest, window=("kaiser", _BETA))
        n_bins = min(n_fft * self.up // fastest, n_fft * self.up // 2) + 1
        # From 0 to (n_bins - 1) / (n_fft up) cycles per sample of the faster rate.
        top = n_bins / (n_fft * self.up)
        zoom = ZoomFFT(len(h), [0, top], n_bins, fs=1.0)
        phase = np.exp(2j * np.pi * np.arange(n_bins) * half / (n_fft * self.up))
        return (zoom(h) * phase).real


def band_pass(sfreq: float, l_freq: float | None, h_freq: float | None) -> tuple[np.ndarray, ...]:
    """The kernel of ``mne.filter.filter_data``'s defaults; none when there are no edges [Hz]."""
    import mne

    if l_freq is None and h_freq is None:
        return ()
    return (mne.filter.create_filter(None, sfreq, l_freq, h_freq, verbose="error"),)


def notches(sfreq: float, lines: Sequence[float]) -> tuple[np.ndarray, ...]:
    """The kernel of ``mne.filter.notch_filter``'s defaults for all ``lines`` [Hz]; none for none.

    Stop bands of ``f / 200``, transition bands of 0.5 Hz on both sides.
    """
    import mne

    if not lines:
        return ()
    reach = [line / 400 + _NOTCH_TRANSITION for line in lines]
    taps = mne.filter.create_filter(
        None, sfreq, [f + r for f, r in zip(lines, reach)], [f - r for f, r in zip(lines, reach)],
        l_trans_bandwidth=_NOTCH_TRANSITION, h_trans_bandwidth=_NOTCH_TRANSITION, verbose="error",
    )  # fmt: skip
    return (taps,)


def ratio_of(target: float | None, sfreq: float, duration_s: float) -> tuple[int, int]:
    """``up`` and ``down`` that bring ``sfreq`` to ``target`` [Hz]; (1, 1) when it is not lower.

    The first of the nearest fractions with denominators up to 100, 1000, 10^4 and 10^5 whose grid
    leaves the nominal one by at most a microsecond over ``duration_s``, else the last. A rate that
    is a fraction itself (1200.5 Hz) is met exactly; one that is not (678.1699829 Hz) to about two
    microseconds an hour.
    """
    if target is None or target >= sfreq:
        return 1, 1
    exact = target / sfreq
    for most in (100, 1000, 10_000, 100_000):
        ratio = Fraction(exact).limit_denominator(most)
        if ratio and abs(ratio / Fraction(exact) - 1) * duration_s <= _DRIFT_S:
            break
    return ratio.numerator, ratio.denominator


class OverlapAdd:
    """One kernel on rows that come block after block; the state of one piece of the recording.

    Parameters
    ----------
    kernel : Kernel
    n_rows : int
    length : int
        Samples of a block, a multiple of ``kernel.down``.
    """

    def __init__(self, kernel: Kernel, n_rows: int, length: int) -> None:
        up, down = kernel.up, kernel.down
        self.kernel, self.n_rows, self.length = kernel, n_rows, length
        self.lead = -(-kernel.half // down) * down
        self.n_fft = fast_length(length + 2 * self.lead, down)
        self.m_fft = self.n_fft // down * up
        self.n_new = length // down * up
        response = kernel.response(self.n_fft) * (up / down)
        delay = np.exp(-2j * np.pi * np.arange(len(response)) * (self.lead / self.n_fft))
        self._response = (response * delay).astype(np.complex64)
        self._tail = np.zeros((n_rows, self.m_fft - self.n_new), np.float32)

    def restart(self) -> None:
        """Forget what came before."""
        self._tail[:] = 0

    def add(self, block: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows and their next ``n_new`` output samples for a block (n_rows, n_fft) float32.

        The block has zeros after its first ``length`` samples. The output lies ``lead`` input
        samples before it.
        """
        from scipy import fft

        group = np.zeros((_GROUP, self.n_fft), np.float32)
        for first in range(0, self.n_rows, _GROUP):
            rows = slice(first, min(first + _GROUP, self.n_rows))
            values, n = block[rows, : self.n_fft], rows.stop - rows.start
            if n < _GROUP:
                # Whole groups only, so that a row's bits do not depend on how many there are.
                group[:n], values = values, group
            spectrum = fft.rfft(values, self.n_fft, axis=1)
            out = fft.irfft(self._fold(spectrum), self.m_fft, axis=1, overwrite_x=True)[:n]
            out[:, : self._tail.shape[1]] += self._tail[rows]
            self._tail[rows] = out[:, self.n_new :]
            yield rows, out[:, : self.n_new]

    def _fold(self, spectrum: np.ndarray) -> np.ndarray:
        """Spectrum of the output: the product, and what lies above its Nyquist folded back."""
        n, response = len(self._response), self._response
        kept = min(n, spectrum.shape[1])
        result = spectrum[:, : min(kept, self.m_fft // 2 + 1)] * response[: self.m_fft // 2 + 1]
        if self.m_fft == self.n_fft or n <= self.m_fft - self.m_fft // 2:
            return result
        # Bin j above the output's Nyquist is bin m_fft - j, conjugate.
        j = np.arange(self.m_fft - self.m_fft // 2, n)
        return self._aliased(result, spectrum, j)

    def _aliased(self, result: np.ndarray, spectrum: np.ndarray, j: np.ndarray) -> np.ndarray:
        half = self.m_fft // 2 + 1
        if result.shape[1] < half:
            result = np.pad(result, ((0, 0), (0, half - result.shape[1])))
        mirrored = j > self.n_fft // 2
        values = spectrum[:, np.where(mirrored, self.n_fft - j, j)]
        values[:, mirrored] = values[:, mirrored].conj()
        result[:, self.m_fft - j] += (values * self._response[j]).conj()
        return result


def fast_length(least: int, multiple: int) -> int:
    """The least multiple of ``multiple``, from ``least`` on, whose cofactor is 2^a 3^b 5^c."""
    from scipy import fft

    return multiple * fft.next_fast_len(-(-least // multiple), real=True)


def block_length(kernel: Kernel, n_rows: int, longest: int) -> int:
    """Samples of a block: the longest piece with its padding, in equal parts that fit into memory.

    At least as long as the padding, so that the work stays in proportion.
    """
    lead = -(-kernel.half // kernel.down) * kernel.down
    most = max(BLOCK_BYTES // (4 * max(1, n_rows)) - 2 * lead, 2 * kernel.half, 1024)
    total = longest + 2 * lead + kernel.down
    wanted = -(-total // -(-total // most))
    return fast_length(wanted + 2 * lead, kernel.down) - 2 * lead


@dataclass
class Branch:
    """Rows ``matrix @ x`` (``x`` itself without matrix), through a kernel, into ``write``.

    ``write(rows, start, values)`` gets the output samples from ``start`` on.
    """

    kernel: Kernel
    write: Callable[[slice, int, np.ndarray], None]
    matrix: np.ndarray | None = None


def run_pieces(
    source: Source,
    pieces: Sequence[tuple[int, int]],
    branches: Sequence[Branch],
    offset: np.ndarray,
    observe: Callable[[int, np.ndarray], None] | None = None,
) -> None:
    """Filter every piece of a recording by itself, in one pass over its samples.

    A piece is padded on both sides like MNE's ``reflect_limited`` by the reach of the kernel:
    reflected about its first and last sample (``2 x[0] - x[n]``) as far as it has samples, then
    with ``offset``. Output samples that lie in no piece are not written.

    Parameters
    ----------
    source : Source
    pieces : (start, stop) [input samples], ascending
    branches : sequence of Branch
        All with the same ``up`` and ``down``; results are those of ``x - offset``.
    offset : (n_channels,) [SI unit]
    observe : ``observe(start, values)``, optional
        Sees every sample of the pieces once, in order, without padding: (n_channels, n) float32.
    """
    if not pieces:
        return
    n_rows, first = len(offset), branches[0].kernel
    reach = max(branch.kernel.half for branch in branches)
    widest = max(branches, key=lambda branch: branch.kernel.half).kernel
    length = block_length(widest, n_rows, max(stop - start for start, stop in pieces))
    filters = [
        OverlapAdd(b.kernel, n_rows if b.matrix is None else len(b.matrix), length)
        for b in branches
    ]
    _keep_freed_memory()
    buffer = np.zeros((n_rows, max(f.n_fft for f in filters)), np.float32)
    samples = buffer[:, :length]
    for piece in pieces:
        wanted = (first.n_out(piece[0]), first.n_out(piece[1]))
        for overlap_add in filters:
            overlap_add.restart()
        blocks = _padded(source, piece, offset, reach, max(f.lead for f in filters), first.down,
                         samples, observe)  # fmt: skip
        for start in blocks:
            for branch, overlap_add in zip(branches, filters):
                block = buffer if branch.matrix is None else branch.matrix @ buffer
                at = (start - overlap_add.lead) // first.down * first.up
                low, high = max(at, wanted[0]), min(at + overlap_add.n_new, wanted[1])
                for rows, values in overlap_add.add(block):
                    if low < high:
                        branch.write(rows, low, values[:, low - at : high - at])


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of arrays up to 32 MiB for the next one.

    It maps large arrays one by one, and gives their pages back, until the first one of such a size
    is freed; new pages for every transform would cost as much as the transform.
    """
    np.empty(2**25 - 2**16, np.uint8)


def _padded(
    source: Source,
    piece: tuple[int, int],
    offset: np.ndarray,
    reach: int,
    lead: int,
    down: int,
    buffer: np.ndarray,
    observe: Callable[[int, np.ndarray], None] | None,
) -> Iterator[int]:
    """Fill ``buffer`` with one block of the padded piece after the other; yields their starts."""
    start, stop = piece
    length = buffer.shape[1]
    n_pad = min(reach, stop - start - 1)
    at = (start - reach) // down * down
    while at - lead < stop:
        low, high = max(at, start), min(at + length, stop)
        buffer[:, : max(0, min(length, start - n_pad - at))] = 0
        buffer[:, min(length, max(0, stop + n_pad - at)) :] = 0
        if low < high:
            values = buffer[:, low - at : high - at]
            fill(source, values, low, high, offset)
            if observe is not None:
                observe(low, values)
        for first, last, edge in ((start - n_pad, start, start), (stop, stop + n_pad, stop - 1)):
            first, last = max(first, at), min(last, at + length)
            if first < last:
                # Sample edge + k of the padding is 2 x[edge] - x[edge - k].
                mirror = _samples(source, offset, buffer, at, piece, 2 * edge - last + 1,
                                  2 * edge - first + 1)  # fmt: skip
                border = _samples(source, offset, buffer, at, piece, edge, edge + 1)
                np.subtract(2 * border, mirror[:, ::-1], out=buffer[:, first - at : last - at])
        yield at
        at += length


def _samples(
    source: Source, offset: np.ndarray, buffer: np.ndarray, at: int, piece: tuple[int, int],
    start: int, stop: int,
) -> np.ndarray:  # fmt: skip
    """Samples of a piece: from the block at ``at`` if it holds them, else read again."""
    if max(at, piece[0]) <= start and stop <= min(at + buffer.shape[1], piece[1]):
        return buffer[:, start - at : stop - at]
    values = np.empty((len(buffer), stop - start), np.float32)
    fill(source, values, start, stop, offset)
    return values
