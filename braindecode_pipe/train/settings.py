"""Which settings a decoder takes, and what it can be fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from pydantic import ValidationError

from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.recipe import Network, TrainSection
from braindecode_pipe.train.linear import LINEAR

DECODERS = (*LINEAR, *get_args(Network))
FIXED = ("nice", "atm", "eegnet")


def family(kind: str) -> Literal["flat", "person", "sensors"]:
    """How a network takes windows.

    ``flat``: one row of features for all people. ``person``: one row of features, of which each
    person's own sensors come first. ``sensors``: sensors in time, with their positions.
    """
    return {"mlp": "flat", "mixer": "person"}.get(kind, "sensors")


def one_layout(decoder: str, network: Mapping[str, Any]) -> bool:
    """Whether features or weights stand for sensors, so that all people must have the same."""
    if decoder in FIXED:
        return not network.get("n_virtual", 0)
    return decoder in (*LINEAR, "mlp") or not network.get("merger", True)


def shared_settings(section: TrainSection) -> dict[str, Any]:
    """The settings of ``[train]`` that are a decoder's own, by their names there and here."""
    from braindecode_pipe.train.decoder import BrainDecoder

    names = _shared(BrainDecoder().get_params())
    return {name: getattr(section, name) for name in names} | {
        "augment": section.augment.model_dump()
    }


def _shared(names: Iterable[str]) -> list[str]:
    # A network has its own arguments; all else means the same in both.
    return sorted(set(names) & set(TrainSection.model_fields) - {"network"})


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what the recipe would refuse: values are defined there, once.

    Raises
    ------
    ModelError
        Naming the setting.
    """
    if settings["decoder"] not in DECODERS:
        raise ModelError(
            "unknown decoder", expected=" | ".join(DECODERS), found=repr(settings["decoder"])
        )
    try:
        given = {name: plain(settings[name]) for name in _shared(settings)}
        TrainSection(**given | {"augment": given["augment"] or {}})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ModelError(
            f"the decoder cannot have this setting: {'.'.join(map(str, wrong['loc']))}",
            expected=wrong["msg"],
            found=repr(wrong["input"]),
        ) from error


def plain(value: Any) -> Any:
    """Numpy's numbers and arrays, and tuples, as what JSON has."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def check_targets(X: Any, Y: np.ndarray, n_steps: int) -> None:
    """Refuse embeddings that do not belong to the windows, are not finite, or have no such steps.

    Raises
    ------
    DataError
    """
    if Y.ndim != 2 or len(X) != len(Y) or not len(Y) or len(X.shape) != 3:
        raise DataError(
            "windows and embeddings do not fit together",
            expected="X (n, ...) and Y (n, n_features), n > 0",
            found=f"X {tuple(X.shape)}, Y {Y.shape}",
        )
    if not np.isfinite(Y).all():
        raise DataError(
            "embeddings hold values that are not finite",
            expected="finite numbers",
            found=f"{int((~np.isfinite(Y)).any(1).sum())} rows with NaN or infinity",
        )
    if Y.shape[1] % n_steps:
        raise DataError(
            "the target cannot be divided into steps",
            expected=f"a multiple of n_steps = {n_steps} columns",
            found=str(Y.shape[1]),
        )
