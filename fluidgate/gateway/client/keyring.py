"""API keys: known by their digests, compared in constant time, never written anywhere."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.gateway_file import Key


class Keyring:
    """The keys that clients may come with; without any, everybody is let in."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    def holder(self, authorization: Sequence[str]) -> str | None:
        """Name of the key in the `Authorization` headers of a request; None where no key is asked for.

        Raises:
            ApiError: no key, or an unknown one.
        """
        if not self._keys:
            return None
        scheme, _, given = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("latin-1")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key.name
        if found is None or scheme.lower() != "bearer":
            raise ApiError(
                401,
                "invalid_api_key",
                "no valid API key; send one as 'Authorization: Bearer KEY'",
                headers={"www-authenticate": "Bearer"},
            )
        return found
