"""One tree of errors: their text, exit codes, and their way between processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from braindecode_pipe import errors
from braindecode_pipe.errors import BraindecodePipeError, CorruptStoreError, InputError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BaseException)
]


def test_one_tree():
    assert len(CLASSES) > 20
    assert all(issubclass(cls, BraindecodePipeError) for cls in CLASSES)
    assert all(cls.__doc__ for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_codes(cls):
    assert cls.exit_code == (2 if issubclass(cls, InputError) else 1)


def test_text_has_one_line_per_part():
    error = CorruptStoreError(
        "the store is damaged", file=Path("a/b"), expected="4 bytes", found="3", remedy="run again"
    )
    assert str(error) == (
        "the store is damaged\n  file: a/b\n  expected: 4 bytes\n  found: 3\n  remedy: run again"
    )
    assert error.file == "a/b"
    assert str(CorruptStoreError("short")) == "short"


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_the_way_between_workers(cls):
    error = cls("message", file="f", expected="e", found="o", remedy="r")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (what Dask does with it)
    assert type(again) is cls
    assert str(again) == str(error)
    assert (again.message, again.file, again.expected, again.found, again.remedy) == (
        "message", "f", "e", "o", "r",
    )  # fmt: skip
