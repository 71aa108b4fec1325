"""Stimuli to vectors: words, pictures, sounds and videos behind one interface.

``run`` is the stage, ``embed`` the function for lists of stimuli, ``model_fingerprint`` what goes
into cache keys, ``verify_reference`` checks a model against a table that it made. Importing this
room loads neither torch nor transformers.
"""

from braindecode_pipe.embed.context import reaches_out, split_spans
from braindecode_pipe.embed.models import BUILT_IN, build_model, embed, model_fingerprint
from braindecode_pipe.embed.provenance import verify_reference
from braindecode_pipe.embed.table import run

__all__ = [
    "BUILT_IN",
    "build_model",
    "embed",
    "model_fingerprint",
    "reaches_out",
    "run",
    "split_spans",
    "verify_reference",
]
