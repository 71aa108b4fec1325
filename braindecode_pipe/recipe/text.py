"""Recipes as text: the resolved recipe with its comments, and the JSON Schema for editors."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from braindecode_pipe.recipe.models import Recipe

_WIDTH = 96


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe, every key with its value and what it means.

    :func:`~braindecode_pipe.recipe.load_recipe` reads it back to an equal recipe. ``None`` is
    written ``"none"``.
    """
    return "\n".join(_section(recipe, ())).strip() + "\n"


def toml_value(value: Any) -> str:
    """A value in TOML: text, numbers, lists of them, and inline tables of them."""
    if value is None:
        return '"none"'
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML also forbids a bare DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return repr(value)


def toml_key(name: str) -> str:
    """A key in TOML, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def recipe_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of recipes; editors complete and check TOML files with it."""
    schema = _without_null(Recipe.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "braindecode_pipe recipe",
    }


def _without_null(node: Any) -> Any:
    """TOML has no null: the word "none" stands in its place."""
    if isinstance(node, dict):
        if node == {"type": "null"}:
            return {"const": "none"}
        return {
            key: "none" if key == "default" and value is None else _without_null(value)
            for key, value in node.items()
        }
    return [_without_null(item) for item in node] if isinstance(node, list) else node


def _comment(text: str | None) -> Iterator[str]:
    for line in textwrap.wrap(text or "", _WIDTH):
        yield f"# {line}"


def _meaning(field: FieldInfo) -> str:
    """The field's description, and its options where it has a fixed set of them."""
    options = ""
    for annotation in (field.annotation, *get_args(field.annotation)):
        if get_origin(annotation) is Literal:
            options = "one of: " + " | ".join(o or '""' for o in get_args(annotation))
    return "; ".join(part for part in (field.description, options) if part)


def _section(section: BaseModel, path: tuple[str, ...], head: str = "[{}]") -> Iterator[str]:
    """Lines of a section: its plain values first, then the sections inside it."""
    if path:
        yield ""
        yield from _comment((type(section).__doc__ or "").split("\n")[0])
        yield head.format(".".join(map(toml_key, path)))
    fields = type(section).model_fields
    inner: list[tuple[tuple[str, ...], str, BaseModel]] = []
    for name, value in {**dict(section), **(section.model_extra or {})}.items():
        where = (*path, name)
        if isinstance(value, BaseModel):
            inner.append((where, "[{}]", value))
        elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
            inner += [((*where, key), "[{}]", item) for key, item in value.items()]
        elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
            inner += [(where, "[[{}]]", item) for item in value]
        elif path or value is not None:
            if name in fields:
                yield from _comment(_meaning(fields[name]))
            yield f"{toml_key(name)} = {toml_value(value)}"
    for where, form, item in inner:
        yield from _section(item, where, form)
