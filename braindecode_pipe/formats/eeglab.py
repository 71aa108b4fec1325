"""The header of an EEGLAB ``.set`` file, as far as lengths and epochs go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIELDS = ("nbchan", "pnts", "trials", "data", "datfile", "srate")


@dataclass(frozen=True)
class Header:
    """``data`` is the name of the file of samples, "" where they are in the ``.set`` file."""

    n_channels: int
    n_times: int
    trials: int
    data: str

    @property
    def n_bytes(self) -> int:
        """Length that the file of samples (float32) must have."""
        return 4 * self.n_channels * self.n_times * self.trials


def read_header(path: Path) -> Header:
    """Read the sizes that a ``.set`` file declares.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        The file is cut, or no EEGLAB file.
    ImportError : a MATLAB 7.3 file, which needs h5py
    """
    fields = _fields(path)
    fields = fields.get("EEG", fields)
    data = fields.get("data", "")
    name = data if isinstance(data, str) else ""
    return Header(
        int(fields["nbchan"]), int(fields["pnts"]), int(fields.get("trials", 1) or 1), name
    )


def _fields(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        if stream.read(128)[124:126] == b"\x00\x02" or _is_hdf5(path):
            return _hdf5(path)
    import scipy.io

    found = scipy.io.loadmat(
        path, variable_names=["EEG", *_FIELDS], squeeze_me=True, struct_as_record=True
    )
    if "EEG" not in found:
        return found
    record = found["EEG"]
    return {name: record[name].item() for name in _FIELDS if name in (record.dtype.names or ())}


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return b"HDF" in stream.read(520)[512:520]


def _hdf5(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        group = file.get("EEG", file)
        fields: dict[str, Any] = {
            name: int(group[name][()].item()) for name in ("nbchan", "pnts", "trials")
            if name in group
        }  # fmt: skip
        data = group.get("data")
        if data is not None and data.dtype.kind == "u" and data.size < 1024:
            fields["data"] = "".join(chr(int(code)) for code in data[()].ravel())
    return fields
