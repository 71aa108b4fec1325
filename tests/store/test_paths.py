"""Paths from data, and links in stores."""

from __future__ import annotations

import pytest

from braindecode_pipe.errors import UnsafePathError
from braindecode_pipe.store import (
    delete_store,
    open_signal,
    open_store,
    safe_join,
    store_attrs,
    verify_store,
    write_store,
)


@pytest.mark.parametrize(
    "relative",
    [
        "",
        "..",
        "../secret",
        "sub-01/../../secret",
        "a/..",
        "/etc/passwd",
        "//host/share",
        "~/secret",
        "~root",
        "a\0b",
        "C:/secret",
        "c:secret",
        r"..\secret",
        r"a\b",
        r"\\host\share",
    ],
)
def test_f28_paths_that_leave_the_folder_are_refused(tmp_path, relative):
    with pytest.raises(UnsafePathError, match="leaves the folder"):
        safe_join(tmp_path, relative)


@pytest.mark.parametrize(
    "relative", ["a", "stimuli/face 1.png", "./a", "a..b/..c", "日本.wav", "a~", "absent/deep/file"]
)
def test_f28_paths_below_the_folder_are_joined(tmp_path, relative):
    assert safe_join(tmp_path, relative) == tmp_path / relative
    assert safe_join(str(tmp_path), relative) == tmp_path / relative


def test_f28_links_that_leave_the_folder_are_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "relative").symlink_to("../outside/secret")
    for name in ("folder", "folder/secret", "folder/new", "file", "relative"):
        with pytest.raises(UnsafePathError, match="symbolic link takes it to"):
            safe_join(root, name)


def test_f28_links_within_the_folder_and_to_it_are_followed(tmp_path):
    root = tmp_path / "root"
    (root / "annex").mkdir(parents=True)
    (root / "annex" / "object").write_text("data")
    (root / "run-1.edf").symlink_to("annex/object")
    (tmp_path / "alias").symlink_to(root)
    assert safe_join(tmp_path / "alias", "run-1.edf").read_text() == "data"


def test_f30_links_in_a_store_are_refused_on_read(tmp_path, stored):
    outside = tmp_path / "outside"
    (stored / "qc").rename(outside)
    (stored / "qc").symlink_to(outside)
    for read in (open_store, open_signal, store_attrs):
        with pytest.raises(UnsafePathError, match="symbolic link"):
            read(stored)
    assert [problem.file for problem in verify_store(stored)] == ["qc"]


def test_f30_a_linked_chunk_is_refused(tmp_path, stored):
    chunk = stored / "signal" / "c" / "0" / "1"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    with pytest.raises(UnsafePathError, match="symbolic link"):
        open_store(stored)


def test_f30_a_chunk_linked_after_opening_is_refused(tmp_path, stored):
    signal = open_signal(stored)
    chunk = stored / "signal" / "c" / "0" / "1"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    with pytest.raises(Exception, match="signal/c/0/1"):
        signal.read(300, 310)


def test_f30_deleting_never_follows_links(tmp_path, stored, make_signal):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("text")
    (stored / "link").symlink_to(outside)
    delete_store(stored)
    assert not stored.exists()
    assert (outside / "thesis.tex").read_text() == "text"

    # Left behind by an interrupted writer, and a link in disguise.
    aside = stored.with_name(f"{stored.name}.tmp-{'0' * 32}")
    aside.mkdir()
    (aside / "link").symlink_to(outside)
    stored.with_name(f"{stored.name}.tmp-{'1' * 32}").symlink_to(outside)
    write_store(stored, {"": make_signal()})
    assert (outside / "thesis.tex").read_text() == "text"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "outside", stored.name]


def test_f30_a_link_in_the_place_of_a_store_is_refused(tmp_path, stored, make_signal):
    alias = tmp_path / "alias.zarr"
    alias.symlink_to(stored)
    for act in (lambda: write_store(alias, {"": make_signal()}), lambda: delete_store(alias)):
        with pytest.raises(UnsafePathError, match="is a symbolic link"):
            act()
    assert verify_store(alias) == verify_store(stored) == []
