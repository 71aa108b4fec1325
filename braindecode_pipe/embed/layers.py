"""Which layers of a network are read, and how their averages are formed."""

from __future__ import annotations

from collections.abc import Sequence

from braindecode_pipe.errors import ModelError


def resolve_layers(layer: float | int | list[int] | None, depth: int, model: str) -> list[int]:
    """Layer numbers from 0 (the input embedding or stem) to ``depth`` (the last).

    Parameters
    ----------
    layer : int, float, list of int, or None
        An int is a number, negative ones count from the end (-1 is the last); a float in [0, 1]
        is a fraction of depth, ``round(layer * depth)``; a list means the average of several;
        None is the last.
    depth : int
        Number of the last layer.
    model : str
        For the error message.

    Raises
    ------
    ModelError
        No such layer.
    """
    if layer is None:
        return [depth]
    if isinstance(layer, float):
        if not 0 <= layer <= 1:
            raise _no_such_layer(layer, depth, model)
        return [round(layer * depth)]
    numbers = [layer] if isinstance(layer, int) else list(layer)
    resolved = []
    for number in numbers:
        if isinstance(number, bool) or not -depth - 1 <= number <= depth:
            raise _no_such_layer(number, depth, model)
        resolved.append(number if number >= 0 else depth + 1 + number)
    if not resolved or len(set(resolved)) < len(resolved):
        raise ModelError(
            f"layers of {model} to average",
            expected="different layers, at least one",
            found=str(layer),
        )
    return resolved


def average_layers(states: Sequence, layers: Sequence[int], model: str):
    """Mean of the chosen layers, all of one shape; ``states[k]`` is layer ``k``.

    Raises
    ------
    ModelError
        The layers have different widths.
    """
    chosen = [states[k] for k in layers]
    if len({tuple(state.shape) for state in chosen}) > 1:
        raise ModelError(
            f"layers of {model} that cannot be averaged",
            expected="layers of one width",
            found=", ".join(f"layer {k}: {states[k].shape[-1]} features" for k in layers),
            remedy="one table of [embed] per layer",
        )
    return sum(chosen[1:], start=chosen[0]) / len(chosen)


def _no_such_layer(layer: object, depth: int, model: str) -> ModelError:
    return ModelError(
        f"{model} has no layer {layer}",
        expected=f"a number from {-depth - 1} to {depth}, or a fraction from 0.0 to 1.0",
        found=repr(layer),
    )
