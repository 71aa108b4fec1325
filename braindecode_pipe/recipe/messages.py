"""From a pydantic error to a :class:`RecipeError` that says where, what, and what instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe.lines import Location
from braindecode_pipe.recipe.models import Recipe


def explain(error: ValidationError, place: Callable[[Location], str]) -> RecipeError:
    """The first problem in full, and the places of the others, so that one pass mends them all.

    Parameters
    ----------
    error : pydantic's
    place : function of a location, giving ``file:line`` or ``--set ...``
    """
    problems: dict[Location, dict[str, Any]] = {}
    for item in error.errors(include_url=False):
        # A value that fits no member of a union is reported once per member.
        location = _written(item["loc"])
        found = problems.setdefault(location, {**item, "expected": []})
        expected = re.sub(r"^Input should be ", "", item["msg"])
        if expected not in found["expected"]:
            found["expected"].append(expected)
    # A misspelt key also leaves its right spelling missing, so the misspelling is told first.
    (location, item), *others = sorted(
        problems.items(), key=lambda problem: problem[1]["type"] != "extra_forbidden"
    )
    also = ""
    if others:
        places = "; ".join(f"{_dotted(where)} at {place(where)}" for where, _ in others[:5])
        also = f" (and {len(others)} more: {places})"
    if item["type"] == "extra_forbidden":
        section, key = location[:-1], str(location[-1])
        known = list(_fields(section))
        return RecipeError(
            f"unknown key {key!r} in {f'[{_dotted(section)}]' if section else 'the recipe'}{also}",
            file=place(location),
            expected=", ".join(known),
            found=key,
            remedy=_nearest(key, known),
        )
    if item["type"] == "missing":
        return RecipeError(
            f"{_dotted(location)} is missing{also}",
            file=place(location[:-1]),
            expected=f"a value for {location[-1]}",
            remedy=_meaning(location),
        )
    return RecipeError(
        f"{_dotted(location)} cannot have this value{also}",
        file=place(location),
        expected=" or ".join(item["expected"]),
        found=_short(item["input"]),
        remedy=_meaning(location),
    )


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    homes = [home for home in _keys(Recipe) if home.endswith(f".{key}")]
    if homes:
        return f"this key belongs elsewhere: {' or '.join(homes)}"
    if near:
        return f'did you mean "{near[0]}"?'
    return "`braindecode-pipe config RECIPE` prints every key with what it means"


def _meaning(location: Location) -> str | None:
    field = _fields(location[:-1]).get(str(location[-1]))
    return f"{location[-1]}: {field.description}" if field and field.description else None


def _fields(location: Location) -> dict[str, Any]:
    """Fields of the section at ``location``; nothing where there is no section."""
    here: Any = Recipe
    for part in location:
        here = _inside(here, part)
    return getattr(here, "model_fields", {})


def _written(location: Location) -> Location:
    """``location`` without the names of union members that pydantic puts behind it."""
    here: Any = Recipe
    kept: list[str | int] = []
    for part in location:
        if here is None:
            break
        kept.append(part)
        here = _inside(here, part)
    return tuple(kept)


def _inside(here: Any, part: str | int) -> Any:
    """The section, list or dict at ``part`` of a section, list or dict; else ``None``."""
    if isinstance(here, type) and issubclass(here, BaseModel):
        field = here.model_fields.get(str(part))
        inner = field.annotation if field else None
    else:
        inner = get_args(here)[-1]
    options = [option for option in get_args(inner) if option is not type(None)]
    if len(options) == 1 and len(get_args(inner)) == 2:
        inner = options[0]
    is_section = isinstance(inner, type) and issubclass(inner, BaseModel)
    return inner if is_section or get_origin(inner) in (list, dict) else None


def _keys(here: Any, above: str = "") -> Iterator[str]:
    """Dotted names of all keys below a section; ``<name>`` where the user chooses the name."""
    if get_origin(here) is dict:
        yield from _keys(get_args(here)[-1], f"{above}.<name>")
    elif get_origin(here) is list:
        yield from _keys(get_args(here)[-1], above)
    elif isinstance(here, type) and issubclass(here, BaseModel):
        for name in here.model_fields:
            dotted = f"{above}.{name}" if above else name
            yield dotted
            yield from _keys(_inside(here, name), dotted)
