"""The base of all sections of a recipe."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

Seconds = float


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are frozen.

    TOML has no null, so the word ``"none"`` stands for it in every field that may be ``None``, and
    no tuples, so an array stands for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _from_toml(cls, value: Any, info: ValidationInfo) -> Any:
        options = get_args(cls.model_fields[info.field_name or ""].annotation)
        if type(None) not in options:
            return value
        if isinstance(value, list) and any(get_origin(option) is tuple for option in options):
            return tuple(None if item == "none" else item for item in value)
        return None if value == "none" else value
