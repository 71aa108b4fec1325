"""Stage ``train``: decoders on folds.

``run`` is one unit of work, one (embedding, decoder, fold); ``run_zero_shot`` is the other, the
ridge weights from which any embedding of category names can be decoded.
"""

from braindecode_pipe.train.stage import run
from braindecode_pipe.train.zero_shot import run_zero_shot

__all__ = ["run", "run_zero_shot"]
