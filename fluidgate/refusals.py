"""What pydantic says of values that it refuses, in our words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fluidgate.arguments import a, shown_value
from fluidgate.errors import ArgumentError, nearest, one_line

Loc = tuple[int | str, ...]


def refused(model: type[BaseModel], error: ValidationError) -> ArgumentError:
    """The first thing that is wrong with the fields of a `model`, and how many more there are."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    more = f" (and {len(errors) - 1} more to mend)" if len(errors) > 1 else ""
    reason = _reason(model, first)
    path = path_of(first["loc"])
    return ArgumentError(one_line(f"{model.__name__}: {path}{': ' if path else ''}{reason}{more}"), one_line(reason))


def by_name(model: type[BaseModel]) -> str:
    """Why fields don't go by place."""
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    read = f", and {model.__name__}.load(...) reads a file" if hasattr(model, "load") else ""
    given = ", ".join(f"{name}=..." for name in needed or model.model_fields)
    return f"{model.__name__}: fields go by name: {model.__name__}({given}){read}"


def unknown_field(model: type[BaseModel], name: str) -> ArgumentError:
    """A name that is no field of a `model`."""
    return ArgumentError(f"{model.__name__}: {name}: {_no_field(model, name)}")


def path_of(loc: Sequence[int | str]) -> str:
    """`classes[1].prompt_tokens`."""
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def limit_broken(error: ErrorDetails, value: str) -> str | None:
    """What is wrong with a number, or with a text that is empty; None where it is something else."""
    limits = error.get("ctx", {})
    match error["type"]:
        case "greater_than":
            return f"must be greater than {limits['gt']:g}, but is {value}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}, but is {value}"
        case "less_than":
            return f"must be less than {limits['lt']:g}, but is {value}"
        case "less_than_equal":
            return f"must be at most {limits['le']:.10g}, but is {value}"
        case "finite_number":
            return f"must be a finite number, but is {value}"
        case "float_type" | "float_parsing":
            return f"must be a number, but is {value}"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"must be a whole number, but is {value}"
        case "bool_type" | "bool_parsing":
            return f"must be true or false, but is {value}"
        case "string_too_short":
            return "must not be empty"
    return None


def _reason(model: type[BaseModel], error: ErrorDetails) -> str:
    loc, value = error["loc"], shown_value(error["input"])
    owner, field = _field(model, loc)
    meaning = f" ({field.description})" if field.description else ""
    match error["type"]:
        case "missing":
            return f"missing{meaning}"
        case "extra_forbidden":
            return _no_field(owner, str(loc[-1]))
        case "string_type":
            return f"must be a text, but is {value}{meaning}"
        case "literal_error":
            given = error["input"]
            known = error.get("ctx", {})["expected"]
            words = re.findall(r"'([^']*)'", known)
            hint = nearest(given, words) if isinstance(given, str) else ""
            return f"must be {known}, but is {value}{hint or meaning}"
        case "model_type" | "model_attributes_type" | "dict_type":
            kind = error.get("ctx", {}).get("class_name", "dictionary")
            has_it = type(getattr(error["input"], str(loc[-1]), None)).__name__ == kind
            return f"must be {a(kind)}, but is {value}{f'; give its {loc[-1]}' if has_it else ''}"
        case "too_short":
            return f"must have at least {error['ctx']['min_length']}, but has {error['ctx']['actual_length']}"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
    broken = limit_broken(error, value)
    if broken is not None:
        return broken + meaning
    return f"{str(error['msg']).replace('Input should', 'must')}, but is {value}{meaning}"


def _no_field(owner: type[BaseModel], name: str) -> str:
    known = list(owner.model_fields)
    mend = nearest(name, known) or _inside(owner, name) or f"; {a(owner.__name__)} has {', '.join(known)}"
    return f"no such field{mend}"


def _inside(owner: type[BaseModel], name: str) -> str:
    """The field of a part that was meant, perhaps."""
    for part, field in owner.model_fields.items():
        inner = _model_of(field)
        close = nearest(name, list(inner.model_fields)) if inner is not None else ""
        if close:
            return f"; did you mean {close.split(chr(39))[1]} of its {part}?"
    return ""


def _field(model: type[BaseModel], loc: Loc) -> tuple[type[BaseModel], FieldInfo]:
    """The model that has the last name of `loc`, and that field."""
    field = FieldInfo()
    for step in loc:
        if isinstance(step, str):
            model = _model_of(field) or model
            field = model.model_fields.get(step, FieldInfo())
    return model, field


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    waiting: list[Any] = [field.annotation]
    while waiting:
        hint = waiting.pop()
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return hint
        waiting += getattr(hint, "__args__", ())
    return None
