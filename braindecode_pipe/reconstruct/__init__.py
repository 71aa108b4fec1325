"""Stage ``reconstruct``: pictures back from predicted embeddings, beside those of noise and of
shuffled brains.

Whatever makes pictures has one interface, ``generate(embedding, low_level, seeds)``
(:mod:`braindecode_pipe.reconstruct.interface`). The metrics are in
:mod:`braindecode_pipe.evaluate.reconstruction`, what they compare is in ``presets``.
"""

from __future__ import annotations

from braindecode_pipe.reconstruct.stage import fingerprint, run

__all__ = ["fingerprint", "run"]
