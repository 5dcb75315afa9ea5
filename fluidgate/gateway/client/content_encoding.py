"""Request bodies that come compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from fluidgate.gateway.client.api_error import ApiError, invalid

GZIP, ZLIB, BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
"""How zlib is told what it reads: gzip; zlib, which HTTP calls deflate; and what some clients send in its place."""

TAKEN = ("gzip", "x-gzip", "deflate")


def encoding_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """How a body is compressed, "" if it is not.

    Raises:
        ApiError: in a way that is not read here, or in several.
    """
    values = b",".join(value for name, value in headers if name == b"content-encoding")
    codings = [each.strip().lower() for each in values.decode("latin-1").split(",") if each.strip()]
    codings = [each for each in codings if each != "identity"]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in TAKEN:
        said = ", ".join(codings)[:100]
        raise ApiError(
            415,
            "unsupported_encoding",
            f"the body has the content-encoding '{said}'; send it as it is, or by gzip or deflate",
            headers={"accept-encoding": "gzip, deflate", "connection": "close"},
        )
    return codings[0]


def decompressed(body: bytes, encoding: str, most: int) -> bytes | None:
    """What a body holds; None if that is more than `most` bytes.

    Raises:
        ApiError: it is not compressed as it says.
    """
    kinds = (ZLIB, BARE) if encoding == "deflate" else (GZIP,)
    for kind in kinds:
        stream = zlib.decompressobj(kind)
        try:
            content = stream.decompress(body, most + 1)
        except zlib.error:
            continue
        if len(content) > most:
            return None
        if stream.eof and not stream.unused_data:
            return content
    raise invalid(f"the body is not compressed by {encoding}, as its header says")
