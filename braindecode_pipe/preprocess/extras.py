"""Packages that not every installation has, and what they say while they work."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.preprocess.steps import Log


def require(module: str, key: str, distribution: str = "") -> ModuleType:
    """Import a module of the extra ``artifacts``.

    Parameters
    ----------
    module : importable name
    key : what in the recipe asks for it, such as ``preprocess.emeg.noisy``
    distribution : its name on PyPI where it is another

    Raises
    ------
    RecipeError : it is not installed
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"{key} needs a package that is not installed",
            expected=distribution or module,
            found=str(error).splitlines()[0],
            remedy='pip install "braindecode-pipe[artifacts]"',
        ) from error


@contextmanager
def warnings_into(log: Log, step: str) -> Iterator[None]:
    """Put what libraries warn of into ``log.warnings``, once each, behind the name of the step.

    Inside, MNE prints nothing and shows no progress; calls that are given ``verbose="error"`` would
    not warn either.
    """
    from mne.utils import catch_logging, use_log_level

    with (
        use_log_level("warning"),
        catch_logging(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, (RuntimeWarning, UserWarning)):
            text = f"{step}: " + re.sub(r"\s+", " ", str(warning.message)).strip()
            if text not in log.warnings:
                log.warnings.append(text)
