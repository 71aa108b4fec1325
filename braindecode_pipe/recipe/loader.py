"""From TOML text to a checked :class:`Recipe`, with errors that name the line and the cure."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe.checks import contradictions
from braindecode_pipe.recipe.models import Recipe

Location = tuple[str | int, ...]

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
        for end in range(len(location), 0, -1):
            if location[:end] in changed:
                return f"--set {changed[location[:end]]}"
        line = _line_of(text, location)
        return f"{name}:{line}" if line else name

    try:
        # Strict: "40" is no number and 1 is no bool. Python callers keep pydantic's leniency.
        recipe = Recipe.model_validate(values, strict=True)
    except ValidationError as error:
        raise _recipe_error(error, place) from error
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
        location = next(_leaves(tomllib.loads(f"{key} = 0")))[0] if equals else ()
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


def _leaves(values: Mapping[str, Any], above: Location = ()) -> Iterator[tuple[Location, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from _leaves(item, (*above, key, index))
        else:
            yield (*above, key), value


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Number of the first line and text of every header and every key = value of a TOML text.

    A statement ends at the first line where what was gathered parses on its own.
    """
    start, gathered = 1, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not gathered and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start if gathered else number
        gathered += line
        try:
            tomllib.loads(gathered)
        except tomllib.TOMLDecodeError:
            continue
        yield start, gathered
        gathered = ""


def _line_of(text: str, location: Location) -> int | None:
    """Line where ``location`` (or the nearest thing around it) is written, or ``None``."""
    best: tuple[int, int] | None = None
    counts: dict[Location, int] = {}
    table: Location = ()
    for line, statement in _statements(text):
        head, value = next(_leaves(tomllib.loads(statement)))
        if statement.lstrip().startswith("["):
            # [[a.b]] parses as a list that holds one empty table, [a.b] as an empty table.
            names: list[str | int] = []
            for name in (part for part in head if not isinstance(part, int)):
                names.append(name)
                if tuple(names) in counts and tuple(names) != head:
                    names.append(counts[tuple(names)])
            if value == [{}] or statement.lstrip().startswith("[["):
                counts[tuple(names)] = counts.get(tuple(names), -1) + 1
                names.append(counts[tuple(names)])
            table = tuple(names)
            written = [table]
        else:
            written = [(*table, *leaf) for leaf, _ in _leaves(tomllib.loads(statement))]
        for candidate in written:
            depth = _shared(candidate, location)
            if depth and (best is None or depth > best[0]):
                best = depth, line + _offset(statement, location[depth - 1])
    return best[1] if best else None


def _shared(a: Location, b: Location) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def _offset(statement: str, key: str | int) -> int:
    """Line inside a statement of several lines where ``key`` stands."""
    for index, line in enumerate(statement.splitlines()):
        if re.search(rf'(?<![\w-])"?{re.escape(str(key))}"?\s*(=|\]|\.)', line):
            return index
    return 0


def _recipe_error(error: ValidationError, place: Any) -> RecipeError:
    """The first problem in full; the others by their place, so that one pass mends them all."""
    problems = []
    for item in error.errors(include_url=False):
        # Members of a union are part of pydantic's location, not of the recipe's.
        location = _written(item["loc"])
        if location not in [known for known, _ in problems]:
            problems.append((location, item))
    location, item = problems[0]
    name = ".".join(map(str, location))
    rest = [f"{place(loc)} {'.'.join(map(str, loc))}" for loc, _ in problems[1:]]
    also = f" (and {len(rest)} more: {'; '.join(rest[:5])})" if rest else ""
    if item["type"] == "extra_forbidden":
        model, key = _model_at(location[:-1]), str(location[-1])
        section = ".".join(map(str, location[:-1]))
        known = list(model.model_fields) if model else []
        return RecipeError(
            f"unknown key {key!r} in {f'[{section}]' if section else 'the recipe'}{also}",
            file=place(location),
            expected=", ".join(known),
            found=key,
            remedy=_nearest(key, known),
        )
    missing = item["type"] == "missing"
    return RecipeError(
        f"{name} is {'missing' if missing else 'not what it can be'}{also}",
        file=place(location[:-1] if missing else location),
        expected=_expected(item, error, location),
        found=None if missing else _short(item["input"]),
        remedy=_describe(location),
    )


def _written(loc: Location) -> Location:
    """``loc`` without the names of union members that pydantic puts into it."""
    model: Any = Recipe
    kept: list[str | int] = []
    for part in loc:
        if model is None:
            break
        kept.append(part)
        model = _step(model, part)
    return tuple(kept)


def _expected(item: Mapping[str, Any], error: ValidationError, location: Location) -> str:
    same = [e["msg"] for e in error.errors(include_url=False) if _written(e["loc"]) == location]
    told = dict.fromkeys(re.sub(r"^Input should be ", "", message) for message in same)
    return " or ".join(told) or str(item["msg"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    if near:
        return f'did you mean "{near[0]}"?'
    homes = [home for home in _homes(Recipe) if home.endswith(f".{key}")]
    if homes:
        return f"this key belongs elsewhere: {' or '.join(homes)}"
    return "`braindecode-pipe config RECIPE` prints every key with what it means"


def _homes(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Dotted names of all keys of all sections."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        inner, named = _inner(field.annotation)
        if inner is not None:
            yield from _homes(inner, f"{above}{name}.{'<name>.' if named else ''}")


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section inside an annotation, and whether the keys of a dict lead to it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for option in get_args(annotation):
        inner, _ = _inner(option)
        if inner is not None:
            return inner, get_origin(annotation) is dict
    return None, False


def _step(annotation: Any, part: str | int) -> Any:
    """What lies at ``part`` of a section, dict or list; ``None`` at a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    if get_origin(annotation) in (list, dict, tuple):
        return get_args(annotation)[-1]
    inner, _ = _inner(annotation)
    return _step(inner, part) if inner else None


def _model_at(location: Location) -> type[BaseModel] | None:
    model: Any = Recipe
    for part in location:
        model = _step(model, part)
    return _inner(model)[0]


def _describe(location: Location) -> str | None:
    model = _model_at(location[:-1])
    field = model.model_fields.get(str(location[-1])) if model else None
    return f"{location[-1]}: {field.description}" if field and field.description else None
