"""What a KV memory stores and removes, told as vLLM 0.32 tells it: batches in MessagePack on a ZeroMQ PUB socket."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fluidgate.emulator.prompt import BLOCK, ID
from fluidgate.emulator.request import EngineRequest
from fluidgate.errors import FluidgateError

MEDIUM = "GPU"
GROUP = 0
"""Of layers whose blocks go together; all do."""

WAITING = 100_000
"""Batches kept for a subscriber that is slow, as vLLM does; the next are lost to it."""

CLOSING = 1000
"""Milliseconds that a port may take to be free; ZeroMQ closes it in a thread of its own."""

ADAPTER = 1
"""`lora_id` of any adapter; vLLM has dropped what it meant."""


class KvEvents:
    """What has happened since it was told last."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []

    def stored(self, request: EngineRequest, first: int, ids: bytes) -> None:
        """The known blocks of a request from `first` on are new, and hold these tokens."""
        assert request.text is not None
        adapter, hashes = request.text.adapter, request.hashes
        self._told.append(
            {
                "type": "BlockStored",
                "block_hashes": hashes[first : request.known],
                "parent_block_hash": hashes[first - 1] if first else None,
                "token_ids": np.frombuffer(ids, ID).tolist(),
                "block_size": BLOCK,
                "lora_id": None if adapter is None else ADAPTER,
                "medium": MEDIUM,
                "lora_name": adapter,
                "extra_keys": [None if adapter is None else (adapter,)] * (request.known - first),
                "group_idx": GROUP,
            }
        )

    def removed(self, block_hash: int) -> None:
        """A block with this content has been taken for another."""
        self._told.append({"type": "BlockRemoved", "block_hashes": [block_hash], "medium": MEDIUM, "group_idx": GROUP})

    def cleared(self) -> None:
        """All content has been lost at once."""
        self._told.append({"type": "AllBlocksCleared"})

    def take(self) -> list[dict[str, Any]]:
        """The events since the last call, in order."""
        told, self._told = self._told, []
        return told


class KvPublisher:
    """The socket on which a rank tells its events; each message is a topic, a number from 0 on (8 bytes) and a batch.

    Args:
        port: 0 for any free one.
        rank: of the engine.

    Attributes:
        port: on which it is.

    Raises:
        FluidgateError: pyzmq or msgspec are missing, or the port is taken.
    """

    def __init__(self, host: str, port: int, rank: int) -> None:
        try:
            import msgspec
            import zmq
        except ImportError:
            raise FluidgateError(
                "engine: --kv-events needs pyzmq and msgspec; pip install 'fluidgate[kv-events]'"
            ) from None
        self._pack = msgspec.msgpack.Encoder().encode
        self._socket: Any = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.IPV6, ":" in host)
        self._socket.setsockopt(zmq.SNDHWM, WAITING)
        place = f"tcp://[{host}]" if ":" in host else f"tcp://{host}"
        try:
            self._socket.bind(f"{place}:{port or '*'}")
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise FluidgateError(
                f"engine: cannot tell KV events on {host} port {port} ({error.strerror}); give another --kv-events"
            ) from None
        self.port = int(self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rpartition(":")[2])
        self._closed: Any = self._socket.get_monitor_socket(zmq.EVENT_CLOSED)
        self._rank = rank
        self._sent = 0

    def publish(self, events: list[dict[str, Any]]) -> None:
        """One batch, with the time of the wall clock."""
        batch = self._pack((time.time(), events, self._rank))
        self._socket.send_multipart((b"", self._sent.to_bytes(8), batch))
        self._sent += 1

    def close(self) -> None:
        """Let go of the port; it is free when this returns, so that a new engine can have it at once."""
        self._socket.unbind(self._socket.last_endpoint)
        self._closed.poll(CLOSING)
        self._socket.disable_monitor()
        self._socket.close(0)
