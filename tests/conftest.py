"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real recordings, or skip."""
    folder = Path(os.environ.get("BRAINDECODE_PIPE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the folder of small real recordings is not here: {folder}")
    return folder


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path, monkeypatch):
    """Tests never write to a ledger beside real data."""
    monkeypatch.setenv("BRAINDECODE_PIPE_LEDGER", str(tmp_path / "ledger"))


@pytest.fixture(scope="session", autouse=True)
def _own_embedding_cache(tmp_path_factory):
    """Tests share one cache of vectors, and it is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINDECODE_PIPE_CACHE", str(tmp_path_factory.mktemp("vectors")))
        yield
