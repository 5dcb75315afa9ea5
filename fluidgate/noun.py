"""What the nouns of the model are: immutable, validated values; and the ranges of their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fluidgate.errors import ArgumentError
from fluidgate.refusals import by_name, refused, unknown_field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


def said(noun: BaseModel) -> dict[str, Any]:
    """The fields that are not at their default."""
    fields = type(noun).model_fields
    return {name: value for name, field in fields.items() if (value := getattr(noun, name)) != field.default}


class Spoken(BaseModel):
    """A model that says in one line why it refuses what it is made of, and shows no more than what it was given."""

    def __init__(self, /, *places: object, **fields: Any) -> None:
        if places:
            raise ArgumentError(by_name(type(self)))
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refused(type(self), error) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # within another model pydantic goes without

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        shown = {name for name, field in type(self).model_fields.items() if field.repr}
        yield from ((name, value) for name, value in said(self).items() if name in shown)


class Noun(Spoken):
    """An immutable, validated value; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        raise ArgumentError(f"{kind}: {name}: a {kind} stays as it is; changed({name}=...) gives another")

    def changed(self, **fields: Any) -> Self:
        """The same with other values of some fields, all of it checked again."""
        try:
            return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | fields)
        except ValidationError as error:
            raise refused(type(self), error) from None

    def replace(self, **fields: Any) -> Self:
        """The same with other values of some fields, each checked by itself, not what goes together.

        Raises:
            FluidgateError: there is no such field, or it can't take that value.
        """
        for name in fields:
            if name not in type(self).model_fields:
                raise unknown_field(type(self), name)
        try:
            checked = {name: _adapter(type(self), name).validate_python(value) for name, value in fields.items()}
        except ValidationError:
            return self.changed(**fields)
        return self.model_copy(update=checked)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but for what was computed of the fields before; unknown ones are refused."""
        for name in update or ():
            if name not in type(self).model_fields:
                raise unknown_field(type(self), name)
        copied = super().model_copy(update=update, deep=deep)
        for name in set(copied.__dict__) - set(type(self).model_fields):
            del copied.__dict__[name]
        return copied


@cache
def _adapter(noun: type[Noun], name: str) -> TypeAdapter[Any]:
    field = noun.model_fields[name]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)
