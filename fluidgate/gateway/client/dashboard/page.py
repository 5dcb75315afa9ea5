"""The page itself: one HTML file that asks for nothing but the stream, and a policy that lets it do nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

PAGE = (files("fluidgate.gateway.client.dashboard") / "index.html").read_bytes()


def policy_of(page: bytes) -> str:
    """A Content-Security-Policy: only the scripts and styles that stand in the page itself, known by their digests."""

    def allowed(element: str) -> str:
        found = re.findall(rf"<{element}>(.*?)</{element}>".encode(), page, re.DOTALL)
        return " ".join(f"'sha256-{b64encode(sha256(each).digest()).decode()}'" for each in found)

    rules = {
        "default-src": "'none'",
        "script-src": allowed("script"),
        "style-src": allowed("style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policy_of(PAGE),
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
