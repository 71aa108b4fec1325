"""From TOML text to a checked :class:`Recipe`, with errors that name the line and the cure."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe.checks import contradictions
from braindecode_pipe.recipe.lines import Location, leaves, line_of
from braindecode_pipe.recipe.messages import explain
from braindecode_pipe.recipe.models import Recipe

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel carries the recipes inside the package; a checkout has them beside it.
_SHIPPED = (_PACKAGE / "pipelines", _PACKAGE.parent / "pipelines")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``--set`` overrides, fill in defaults and check it as a whole.

    Parameters
    ----------
    path : path or name
        A TOML file, or the name of a recipe in ``pipelines/`` (see :func:`find_recipe`).
    overrides : sequence of str
        ``"section.key=value"``. The value is read as TOML and, where it is none, as a string.

    Raises
    ------
    RecipeError
        The file is missing or no TOML; a key is unknown (the nearest valid key is named); a value
        has the wrong type or range; two values contradict each other. The error's ``file`` is
        ``path:line``, or ``--set`` where the value came from an override.
    """
    file = find_recipe(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(
            "the recipe cannot be read", file=file, found=error.strerror or str(error)
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            "the recipe is not text", file=file, expected="UTF-8", found=error.reason
        ) from error
    return parse_recipe(text, str(file), overrides)


def parse_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe written in ``text``; ``name`` is what errors call it. See :func:`load_recipe`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            "the recipe is not valid TOML", file=_syntax_place(error, text, name), found=str(error)
        ) from error
    changed = {_apply(values, override): override for override in overrides}

    def place(location: Location) -> str:
        for where, override in changed.items():
            # Around or below: "--set a.b=1" also brings a section [a] that nobody knows.
            if all(a == b for a, b in zip(where, location)):
                return f"--set {override}"
        line = line_of(text, location)
        return f"{name}:{line}" if line else name

    try:
        # Strict: "40" is no number and 1 is no bool. Python callers keep pydantic's leniency.
        recipe = Recipe.model_validate(values, strict=True)
    except ValidationError as error:
        raise explain(error, place) from error
    for location, details in contradictions(recipe):
        raise RecipeError(**details, file=place(location))
    return recipe


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or a bare name with or without ``.toml``.

    A bare name is looked for in ``pipelines/`` of the working directory, then among the recipes
    that the package brings.

    Raises
    ------
    RecipeError
        There is none of that name; the nearest one that exists is named.
    """
    path = Path(name)
    if path.is_file():
        return path
    folders = (Path("pipelines"), *_SHIPPED)
    if path.parent == Path("."):
        for folder in folders:
            for candidate in (folder / path.name, folder / f"{path.name}.toml"):
                if candidate.is_file():
                    return candidate
    known = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    near = difflib.get_close_matches(path.stem, known, 1)
    raise RecipeError(
        "there is no such recipe",
        file=path,
        expected=f"a TOML file, or one of: {', '.join(known)}" if known else "a TOML file",
        found="a folder" if path.is_dir() else "nothing",
        remedy=f'did you mean "{near[0]}"?'
        if near
        else "`braindecode-pipe init DATA` writes a recipe for a data set",
    )


def _syntax_place(error: tomllib.TOMLDecodeError, text: str, name: str) -> str:
    found = re.search(r"at line (\d+)", str(error))
    return f"{name}:{found[1] if found else len(text.splitlines())}"


def _apply(values: dict[str, Any], override: str) -> Location:
    """Set one ``section.key=value`` in nested dicts and return its location."""
    key, equals, text = override.partition("=")
    try:
        location = next(leaves(tomllib.loads(f"{key} = 0")))[0] if equals else ()
    except tomllib.TOMLDecodeError:
        location = ()
    if not location:
        raise RecipeError(
            "an override cannot be read",
            file=f"--set {override}",
            expected="section.key=value, as in --set evaluate.top_k=[1,5]",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = values
    for name in location[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"{name} is a value, not a section",
                file=f"--set {override}",
                remedy=f"set {name} itself",
            )
    table[location[-1]] = value
    return location
