"""Files of every vendor: what one is, how it is opened, whether it is whole.

``plan`` and ``preprocess`` open recordings through this room, so that both see the same channels,
companions and errors. :func:`describe` says what a file is, :func:`open_raw` and
:func:`open_epochs` open it lazily, :func:`check_declared` compares headers with what is on disk.
"""

from __future__ import annotations

from braindecode_pipe.formats.kinds import Kind, describe, refuse, require
from braindecode_pipe.formats.lengths import Declared, check_declared, declared, truncated
from braindecode_pipe.formats.names import refuse_repeated, repeated
from braindecode_pipe.formats.opening import guarded, open_epochs, open_raw
from braindecode_pipe.formats.parts import companion_files

__all__ = [
    "Declared",
    "Kind",
    "check_declared",
    "companion_files",
    "declared",
    "describe",
    "guarded",
    "open_epochs",
    "open_raw",
    "refuse",
    "refuse_repeated",
    "repeated",
    "require",
    "truncated",
]
