"""One tree of exceptions. Every message says what was expected, what was found and what to do.

``exit_code`` is what the command line returns: 2 for bad input, 1 for a stage that failed.
"""

from __future__ import annotations

from pathlib import Path


class BraindecodePipeError(Exception):
    """Root of all errors that this package raises on purpose.

    Parameters
    ----------
    message : str
        What went wrong, in one sentence.
    file : path, optional
        The file (or store, or line of a recipe) that it concerns.
    expected, found, remedy : str, optional
        What should have been there, what was there, what the user can do.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.expected, self.found, self.remedy = expected, found, remedy
        lines = [message]
        for label, value in (
            ("file", self.file),
            ("expected", expected),
            ("found", found),
            ("remedy", remedy),
        ):
            if value is not None:
                lines.append(f"  {label}: {value}")
        super().__init__("\n".join(lines))

    @property
    def line(self) -> str:
        """The whole message in one line."""
        return one_line(str(self))

    def __reduce__(self):
        # Keyword-only arguments: the default protocol would lose them between worker processes.
        return (
            _rebuild,
            (
                type(self),
                self.message,
                {
                    "file": self.file,
                    "expected": self.expected,
                    "found": self.found,
                    "remedy": self.remedy,
                },
            ),
        )


def one_line(text: str) -> str:
    """The text of an error in one line: ``message; file: x; expected: y; found: z; remedy: w``."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _rebuild(cls, message, details):
    return cls(message, **details)


class InputError(BraindecodePipeError):
    """Bad input: the user's files or settings must change."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe that cannot be read, or a value in it that cannot be right."""


class DataError(InputError):
    """A recording, sidecar or event table that cannot be used as it is."""


class MissingFileError(DataError):
    """A file or sidecar that is named, or needed, and is not there."""


class TruncatedRecordingError(DataError):
    """A recording shorter than its header declares."""


class UnitError(DataError):
    """Amplitudes, positions or times that must be in another unit."""


class EventError(DataError):
    """Events outside the recording, without stimulus, or disagreeing with the stimuli."""


class NoEventsError(EventError):
    """A data set without any event: its recordings can be preprocessed, and nothing decoded."""


class StimulusError(DataError):
    """A stimulus that is missing on disk or cannot be decoded."""


class PositionError(DataError):
    """Sensor positions that are needed and missing, or impossible."""


class DuplicateRecordingError(DataError):
    """Two recordings that hold the same samples, possibly shifted."""


class SplitError(InputError):
    """A split that leaves nothing to train on or nothing to test."""


class LeakageError(InputError):
    """Training and test share something that they must not share."""


class ModelError(InputError):
    """An embedding model that is missing, not the pinned one, or unsafe to load."""


class UnsafePathError(InputError):
    """A path from a data file that leaves the folder it belongs to."""


class StoreError(BraindecodePipeError):
    """Anything about stores."""


class IncompleteStoreError(StoreError):
    """A store whose writing never finished."""


class CorruptStoreError(StoreError):
    """A store whose bytes are not those that were written."""


class StoreLockedError(StoreError):
    """Somebody else is writing this store."""


class DiskFullError(StoreError):
    """Not enough free space for what is to be written."""


class SchemaError(StoreError):
    """A dataset that does not follow the data contract."""


class StageError(BraindecodePipeError):
    """A stage failed on at least one unit of work; the others finished."""
