"""A fitted tokenizer as two files in a store or a folder, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braindecode_pipe.errors import (
    BraindecodePipeError,
    MissingFileError,
    ModelError,
    RecipeError,
)
from braindecode_pipe.fitting.checkpoint import (
    ARRAYS,
    CONFIG,
    checkpoint_files,
    load_checkpoint,
    read_folder,
    restore_state,
    state_arrays,
)
from braindecode_pipe.networks.tokenizer import BrainTokenizer
from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.store import is_committed, read_file


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and what is known about it.

    Attributes
    ----------
    network : BrainTokenizer
    arguments : of its constructor
    sfreq : rate of its signals [Hz]
    seen : content hash of a recording -> (start, stop) [s] pairs that it was fitted on; None where
        nobody wrote it down
    fit_scope : hash of the ``FitScope``, or ""
    """

    network: BrainTokenizer
    arguments: dict[str, Any]
    sfreq: float
    seen: Mapping[str, list[list[float]]] | None
    fit_scope: str = ""

    @property
    def window(self) -> int:
        """Samples of a window."""
        return self.network.window

    @property
    def n_sources(self) -> int:
        """Latent sources."""
        return len(self.network.gather.sources)

    def files(self) -> dict[str, bytes]:
        """The two files of the checkpoint."""
        config = {
            "tokenizer": "sensors",
            "network": self.arguments,
            "sfreq": self.sfreq,
            "seen": self.seen,
            "fit_scope": self.fit_scope,
        }
        return checkpoint_files(state_arrays(self.network), config)


def make_network(section: TokenizeSection) -> tuple[BrainTokenizer, dict[str, Any]]:
    """The network that ``[tokenize]`` describes, not fitted, and all arguments it was given.

    Raises
    ------
    RecipeError
        For settings that it does not have or cannot do with, naming ``[tokenize.network]``.
    """
    given = section.network.model_dump()
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(BrainTokenizer).parameters.items()
        if name != "window"
    }
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise RecipeError(
            f"unknown setting of the tokenizer: {', '.join(unknown)}",
            expected=", ".join(sorted(known)),
            found=", ".join(f"{name} = {given[name]!r}" for name in unknown),
            remedy="correct [tokenize.network]",
        )
    arguments = {"window": section.window, **known, **given}
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(section.seed)
        try:
            return BrainTokenizer(**arguments), arguments
        except BraindecodePipeError as error:
            raise RecipeError(
                error.message, file="[tokenize.network]", expected=error.expected,
                found=error.found, remedy=error.remedy or "correct [tokenize]",
            ) from error  # fmt: skip
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise RecipeError(
                "the tokenizer cannot be built",
                file="[tokenize.network]",
                expected="settings that BrainTokenizer can do with",
                found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                remedy="correct [tokenize.network]",
            ) from error


def reader(folder: str | Path) -> Callable[[str], bytes]:
    """What reads the files of a tokenizer: of a store, or of a plain folder.

    Raises
    ------
    MissingFileError
        When they are not there.
    """
    folder = Path(folder)
    if is_committed(folder):
        return partial(read_file, folder)
    missing = [name for name in (ARRAYS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise MissingFileError(
            "there is no tokenizer in this folder",
            file=folder,
            expected=f"{ARRAYS} and {CONFIG}, as the stage tokenize writes them",
            found=f"no {', no '.join(missing)}" if folder.is_dir() else "no such folder",
            remedy="correct tokenize.folder: a store <out>/tokenize/fit_.../<key>.zarr",
        )
    return read_folder(folder)


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over the files of a tokenizer; errors as for :func:`reader`."""
    read = reader(folder)
    return sha256(read(ARRAYS) + read(CONFIG)).hexdigest()


def load_tokenizer(folder: str | Path, section: TokenizeSection | None = None) -> Tokenizer:
    """The fitted tokenizer of a store or folder.

    Parameters
    ----------
    section : TokenizeSection, optional
        What it must fit.

    Raises
    ------
    MissingFileError, ModelError
        When files are missing, or hold no tokenizer.
    RecipeError
        When windows or rate differ from those of the section.
    """
    arrays, config = load_checkpoint(reader(folder))
    try:
        if config["tokenizer"] != "sensors":
            raise KeyError("tokenizer")
        network = BrainTokenizer(**config["network"]).eval()
        restore_state(network, arrays)
        found = Tokenizer(
            network, config["network"], float(config["sfreq"]), config["seen"], config["fit_scope"]
        )
    except (KeyError, TypeError, ValueError, BraindecodePipeError) as error:
        raise ModelError(
            "this is no tokenizer of sensors",
            file=folder,
            expected="what the stage tokenize wrote",
            found=getattr(error, "message", None) or repr(error),
            remedy="correct tokenize.folder, or fit one",
        ) from error
    if section is not None:
        own = (found.window, found.sfreq)
        if own[0] != section.window or not np.isclose(own[1], section.sfreq, rtol=1e-6, atol=0):
            raise RecipeError(
                "the tokenizer was fitted on other windows",
                file=folder,
                expected=f"tokenize.sfreq = {own[1]:g}, window_s = {own[0] / own[1]:g}",
                found=f"sfreq = {section.sfreq:g}, window_s = {section.window_s:g}",
                remedy="give it these, and preprocess.emeg.sfreq with them",
            )
    return found
