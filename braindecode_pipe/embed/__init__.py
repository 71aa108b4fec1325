"""Stimuli to vectors: words, pictures and sounds behind one interface.

``run`` is the stage, ``embed`` the function for lists of stimuli, ``model_fingerprint`` what goes
into cache keys. Importing this room loads neither torch nor transformers.
"""

from braindecode_pipe.embed.models import BUILT_IN, build_model, embed, model_fingerprint
from braindecode_pipe.embed.table import run

__all__ = ["BUILT_IN", "build_model", "embed", "model_fingerprint", "run"]
