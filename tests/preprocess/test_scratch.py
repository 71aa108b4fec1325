"""The scratch file: an array like any other, gone afterwards, and clear when the disk is full."""

from __future__ import annotations

import errno
from collections import namedtuple

import numpy as np
import pytest

from braindecode_pipe.errors import DiskFullError, StoreError
from braindecode_pipe.preprocess import scratch
from braindecode_pipe.preprocess.scratch import Scratch, slices


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(7, 50))


def filled(folder, values, dtype=np.float64):
    array = Scratch(folder / "a.zarr", values.shape, dtype)
    with array:
        array.write(0, 0, values)
        yield array


@pytest.fixture
def array(tmp_path, values):
    yield from filled(tmp_path, values)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_reads_what_was_written_in_any_pieces(tmp_path, values, dtype):
    rng = np.random.default_rng(1)
    expected = np.zeros(values.shape, dtype)
    with Scratch(tmp_path / "new" / "a.zarr", values.shape, dtype) as array:
        array.write(0, 0, expected)
        for _ in range(200):
            (a, b), (c, d) = (np.sort(rng.integers(0, n + 1, 2)) for n in values.shape)
            expected[a:b, c:d] = part = rng.normal(size=(b - a, d - c))
            array.write(a, c, part)
            (a, b), (c, d) = (np.sort(rng.integers(0, n + 1, 2)) for n in values.shape)
            found = array.read(slice(a, b), slice(c, d))
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected[a:b, c:d])
        np.testing.assert_array_equal(np.stack(list(array)), expected)
        # Transposed and strided values are written as they are seen.
        array.write(0, 0, np.asfortranarray(values)[:, ::-1])
        np.testing.assert_array_equal(array.read(), values[:, ::-1].astype(dtype))


def test_blocks_cover_everything_once(array, monkeypatch):
    assert [(part.start, part.stop) for part in slices(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    for block in (1, 8 * 7 * 4, 8 * 50 * 3, 10**9):
        monkeypatch.setattr(scratch, "BLOCK_BYTES", block)
        for parts, n, other in ((array.row_blocks(), 7, 50), (array.column_blocks(), 50, 7)):
            parts = list(parts)
            assert np.concatenate([np.arange(n)[part] for part in parts]).tolist() == list(range(n))
            assert all((part.stop - part.start) * other * 8 <= max(block, 8 * other)
                       for part in parts)  # fmt: skip


@pytest.mark.parametrize("block", [1, 8 * 7 * 13, 10**9])
def test_mix_is_a_matrix_product(array, values, monkeypatch, block):
    monkeypatch.setattr(scratch, "BLOCK_BYTES", block)
    matrix = np.eye(7)
    matrix[2] = np.random.default_rng(1).normal(size=7)
    matrix[2, 4] = 0
    matrix = matrix[[0, 2, 3, 5, 6]]
    array.mix(matrix)
    assert array.shape == (5, 50) and len(list(array)) == 5
    found = array.read()
    np.testing.assert_allclose(found[1], matrix[1] @ values, rtol=1e-12)
    # Rows that are passed on are the same to the last bit.
    np.testing.assert_array_equal(found[[0, 2, 3, 4]], values[[0, 3, 5, 6]])


def test_mix_with_the_identity_writes_nothing(array, values, monkeypatch):
    monkeypatch.setattr(Scratch, "write", lambda *args: pytest.fail("written"))
    array.mix(np.eye(7))
    np.testing.assert_array_equal(array.read(), values)


def test_a_scaled_row_is_not_taken_for_one_that_is_passed_on(array, values):
    array.mix(np.diag([1.0, -1, 2, 0, 1, 1, 1]))
    np.testing.assert_array_equal(array.read(), values * np.array([[1, -1, 2, 0, 1, 1, 1]]).T)


def test_no_file_is_left_after_an_error_or_seen_before(tmp_path, values):
    with pytest.raises(ZeroDivisionError), Scratch(tmp_path / "a.zarr", values.shape) as array:
        array.write(0, 0, values)
        assert not list(tmp_path.iterdir())
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_f05_a_full_disk_is_told_before_and_while_writing(tmp_path, values, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: usage(10**6, 10**6 - 2799, 2799))
        with (
            pytest.raises(DiskFullError, match=r"a.zarr(.|\n)*2800 bytes free(.|\n)*2799 bytes"),
            Scratch(tmp_path / "a.zarr", values.shape),
        ):
            pytest.fail("not reached")
    with Scratch(tmp_path / "a.zarr", values.shape) as array:

        def full(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.pwrite", full)
        with pytest.raises(DiskFullError, match=r"2800 bytes free"):
            array.write(0, 0, values)


def test_a_file_that_ends_early_is_told(tmp_path, values):
    with Scratch(tmp_path / "a.zarr", values.shape) as array:
        array.write(0, 0, values[:3])
        np.testing.assert_array_equal(array.read(slice(0, 3)), values[:3])
        with pytest.raises(StoreError, match=r"ends early(.|\n)*1600 bytes more"):
            array.read()
