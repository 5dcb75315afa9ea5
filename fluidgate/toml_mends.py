"""How to mend a line that is no TOML."""

from __future__ import annotations

import re

from fluidgate.written_numbers import number_meant

CURLY = "\u201c\u201d\u201e\u201f\u2018\u2019\u00ab\u00bb"
"""Quotes as word processors have them."""

NUMBER = r"[-+]?[\d_]+"


def mend_of(line: str) -> str:
    """
    >>> mend_of("alpha = 0,0174")
    'write 0.0174'
    >>> mend_of("alpha : 0.0174")
    "write '=' in the place of ':'"
    >>> mend_of("name = chat")
    "write texts in quotes, 'chat'"
    """
    text = line.strip()
    value = text.partition("=")[2].partition("#")[0].strip()
    if text.partition("#")[0].rstrip().endswith("="):
        return "write a value after '='"
    if any(quote in text for quote in CURLY):
        return 'write straight quotes, "'
    if re.match(r"[\w.\"'-]+\s*:", text):
        return "write '=' in the place of ':'"
    if ("," in value or value[-1:] in ("%", "k", "K")) and (number := number_meant(value)) is not None:
        return f"write {number:.10g}"
    if found := re.fullmatch(rf"({NUMBER}(?:\.\d+)?)\s*[a-zA-Zµ/]+", value):
        return f"write the number alone, {found[1]}: the key says what it is in"
    if value.lower() in ("true", "false"):
        return f"write {value.lower()}"
    if value.lower() in ("none", "null", "nil"):
        return "leave the key out"
    if re.fullmatch(r"\.\d+|\d+\.", value):
        return "write digits on both sides of the point"
    if re.fullmatch(r"[A-Za-z_~./][\w./:~-]*", value):
        return f"write texts in quotes, '{value}'"
    if value[:1] in ("'", '"') and value.count(value[0]) == 1:
        return "close the quotes"
    if text.startswith("[") and "]" not in text:
        return "close the bracket"
    if text.startswith("{"):
        return "JSON is not read; write KEY = VALUE lines under [TABLE]"
    return "mend this line"
