"""Simulated EEG, MEG and BOLD of the same people, with planted truth, as raw BIDS.

>>> from braindecode_pipe.simulate import simulate
>>> simulate("simulated", n_subjects=2, snr=0.2, seed=0)  # doctest: +SKIP
"""

from braindecode_pipe.simulate.dataset import is_current, simulate, simulate_tiny
from braindecode_pipe.simulate.settings import Settings

__all__ = ["Settings", "is_current", "simulate", "simulate_tiny"]
