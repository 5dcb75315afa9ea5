"""What click says of values that it refuses, in the words of the rest of the program."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import click

from fluidgate.written_numbers import number_meant

NO_NUMBER = re.compile(r"'(?P<value>.*)' is not a valid (?P<kind>integer|float|number)( range)?\.?", re.DOTALL)
OUT_OF_RANGE = re.compile(r"(?P<value>\S+) is not in the range (?P<range>.*?)\.?")
RANGE = re.compile(r"((?P<low>[^<]+)(?P<from><=?))?x((?P<to><=?)(?P<high>.+))?")
LIMIT = re.compile(r"x(?P<sign>>=?|<=?)(?P<limit>.+)")
SIGNS = {">=": "at least", ">": "greater than", "<=": "at most", "<": "less than"}


def message_of(error: click.ClickException, arguments: Sequence[str]) -> str:
    """The line that says what is wrong with the arguments of a command."""
    said = error.format_message().replace(error.message, in_our_words(error.message))
    return said + _hint_of(error, arguments)


def in_our_words(text: str) -> str:
    """
    >>> in_our_words("'50%' is not a valid float.")
    "must be a number, but is '50%'; write 0.5"
    >>> in_our_words("'1e6' is not a valid integer.")
    "must be a whole number, but is '1e6'; write 1000000"
    >>> in_our_words("0 is not in the range x>=1.")
    'must be at least 1, but is 0'
    >>> in_our_words("50.0 is not in the range 0.0<=x<1.0.")
    'must be at least 0 and less than 1, but is 50'
    """
    if found := NO_NUMBER.fullmatch(text):
        value, whole = found["value"], found["kind"] == "integer"
        wanted = "a whole number" if whole else "a number"
        return f"must be {wanted}, but is '{value}'{_meant(value, whole)}"
    if found := OUT_OF_RANGE.fullmatch(text):
        return f"must be {_limits(found['range'])}, but is {_short(found['value'])}"
    return text


def _limits(text: str) -> str:
    if found := LIMIT.fullmatch(text):
        return f"{SIGNS[found['sign']]} {_short(found['limit'])}"
    found = RANGE.fullmatch(text)
    if found is None or not (found["low"] and found["high"]):
        return f"in the range {text}"
    low = f"{SIGNS[found['from'].replace('<', '>')]} {_short(found['low'])}"
    return f"{low} and {SIGNS[found['to']]} {_short(found['high'])}"


def _short(number: str) -> str:
    return number.removesuffix(".0")


def _meant(value: str, whole: bool) -> str:
    """The number that was meant, where it is written in another way."""
    number = number_meant(value)
    if number is None or not math.isfinite(number) or (whole and not number.is_integer()):
        return ""
    return f"; write {number:.0f}" if whole else f"; write {number:.10g}"


def _hint_of(error: click.ClickException, arguments: Sequence[str]) -> str:
    """The long option that one dash stands before, `-gpus`."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None or len(error.option_name) != len("-x"):
        return ""
    known = {name for each in error.ctx.command.params for name in each.opts}
    meant = next((f"-{word}" for word in arguments if f"-{word}" in known), None)
    return f" Did you mean '{meant}'?" if meant else ""
