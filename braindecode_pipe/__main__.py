"""``python -m braindecode_pipe`` is the command ``braindecode-pipe``."""

from __future__ import annotations

import sys

from braindecode_pipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
