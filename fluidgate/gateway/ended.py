"""What a request leaves behind: read by the metrics and the request log, which know nothing else of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluidgate.model import Pricing


@dataclass
class Times:
    """Epochs of a request by the gateway's clock, s; nan where it did not come so far."""

    arrived: float
    prefill: float = math.nan
    prompt_read: float = math.nan
    decode: float = math.nan
    first_token: float = math.nan
    last_token: float = math.nan
    end: float = math.nan


@dataclass(frozen=True)
class EndedRequest:
    """A request that was let in and has ended, however it did.

    Attributes:
        id: what the engines know it by; `client_id`, the client's own name of it, "" if it gave none.
        client: its address, "" if it is not known.
        model: the group that served it; `class_name`, of its scenario; `pricing`, what it earns there.
        key: name of the API key, if one was given.
        status: of HTTP; 0 if nothing was sent.
        outcome: "completed", or the reason why not.
        prompt_tokens, output_tokens: counted by the engine where it says so.
        prefill_engine, decode_engine: URLs; None if it has been on none.
        attempts: prefills begun; `lost_kv`, how often one was begun again because the KV was lost.
        times: of what happened to it, `end` among them.
        error: what the gateway itself told the client, "" if nothing.
    """

    id: str
    client_id: str
    client: str
    model: str
    class_name: str
    pricing: Pricing
    key: str | None
    path: str
    stream: bool
    status: int
    outcome: str
    prompt_tokens: int
    output_tokens: int
    prefill_engine: str | None
    decode_engine: str | None
    attempts: int
    lost_kv: int
    times: Times
    error: str = ""


@dataclass(frozen=True)
class RefusedRequest:
    """A request that was refused on arrival.

    Attributes:
        status: of HTTP.
        reason: as in `x-fluidgate-reason`.
        error: what the client was told.
        path, client_id, client: as in `EndedRequest`, "" where they are not known; `class_name` and `key`, None.
    """

    status: int
    reason: str
    path: str = ""
    client_id: str = ""
    class_name: str | None = None
    key: str | None = None
    client: str = ""
    error: str = ""
