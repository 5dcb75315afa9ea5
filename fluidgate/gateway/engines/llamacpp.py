"""llama.cpp's server: KV moves by files, which one server writes of a slot and another reads into one of its own."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import orjson

from fluidgate.gateway.engines.adapter import NO_HEADERS, Abilities, Adapter, Call, Facts, Handover, Load, Served
from fluidgate.gateway.engines.errors import EngineError, EngineRefused, KvLost, NotThisEngine, speaking
from fluidgate.gateway.engines.prompts import counted_prompt, probe, prompt_only
from fluidgate.gateway.engines.slots import Slots
from fluidgate.gateway.engines.upstream import Answer, Connections

GAUGES = re.compile(rb"^llamacpp:(requests_processing|requests_deferred) (\S+)$", re.MULTILINE)
LEASE = 600.0
"""s."""

PREFIX, SUFFIX = "fluidgate-", ".kv"


@dataclass(frozen=True)
class Saved:
    """KV in a file, and perhaps still in the slot it was read in.

    Attributes:
        file: its name in the slot folder.
        slot: where it was read.
        uses: of that slot until then.
        remove: the file.
    """

    file: str
    slot: int
    uses: int
    remove: Callable[[], None]

    def is_in(self, slot: int, slots: Slots) -> bool:
        """Whether `slot`, just dealt, still holds the KV."""
        return slot == self.slot and slots.uses[slot] == self.uses + 1


@final
class LlamaCpp(Adapter):
    """One server, started with `--slots`, `--metrics` and a `--slot-save-path` that all servers of the cluster share.

    The adapter deals out the server's slots, so no one else may send it requests. Every prompt read is saved at once:
    its slot is free for the next, and no file is waited for when the decode is placed.
    """

    def __init__(
        self,
        url: str,
        *,
        slot_folder: Path,
        connections: Connections | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        lease: float = LEASE,
    ) -> None:
        """
        Args:
            url, connections, headers: see `Adapter`.
            slot_folder: the server's `--slot-save-path`, where this process can remove files.
            lease: s after which a file is removed that nobody has asked for.
        """
        super().__init__(url, connections=connections, headers=headers)
        self.abilities = Abilities(late=True, two_legs=True, lease=lease)
        self._folder = slot_folder
        self._slots: Slots | None = None
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    async def start(self) -> None:
        await super().start()
        self._remove_leftovers()

    async def close(self) -> None:
        for file in list(self._expiries):
            self._remove(file)
        await super().close()

    async def check(self) -> Facts:
        models, properties = await self._models(), await self.upstream.get("/props")
        slots = await self._all_slots()
        await self._see_the_folder()
        with speaking(self.url, "llama.cpp"):
            about = orjson.loads(properties)
            return Facts(
                models=models,
                max_model_len=about["default_generation_settings"]["n_ctx"],
                slots=slots.count,
                moves_kv=bool(about.get("endpoint_slots")),
                version=about.get("build_info"),
            )

    async def check_pair(self, other: Adapter) -> str | None:
        if not isinstance(other, LlamaCpp):
            return await super().check_pair(other)
        try:
            call = probe("")
            async with other.write_answer(call, await self.read_prompt(call)) as answer:
                timings = orjson.loads(await answer.read())["timings"]
        except EngineError as error:
            return str(error)
        if timings["prompt_n"] > 1:
            return f"{other.url} read {timings['prompt_n']} tokens of a prompt again whose KV {self.url} had saved"
        return None

    async def look_up_models(self) -> Served:
        return Served(await self._models())

    async def load(self) -> Load:
        gauges = {name: float(value) for name, value in GAUGES.findall(await self.upstream.get("/metrics"))}
        with speaking(self.url, "llama.cpp"):
            return Load(round(gauges[b"requests_processing"]), round(gauges[b"requests_deferred"]), None)

    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        slots = await self._all_slots()
        async with slots.one() as slot:
            file = f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
            body = prompt_only(call.body, **_in(slot), **_rendered(call.body))
            answer = await self.upstream.post(call.path, body, call.id, call.headers)
            self._expire_later(file)
            await self._move(slot, "save", file)
            saved = Saved(file, slot, slots.uses[slot], partial(self._remove, file))
            return Handover(self.url, time.monotonic(), saved, *counted_prompt(answer))

    @asynccontextmanager
    async def write_answer(self, call: Call, handover: Handover | None) -> AsyncIterator[Answer]:
        slots = await self._all_slots()
        saved: Saved | None = handover.data if handover else None
        here = handover is not None and handover.url == self.url
        async with slots.one(saved.slot if saved and here else None) as slot:
            if saved and not (here and saved.is_in(slot, slots)):
                await self._restore(slot, saved.file)
            body = orjson.dumps(dict(call.body) | _in(slot))
            async with self.upstream.open(
                call.path, body, call.id, call.headers, stream=call.stream, silence=call.silence
            ) as answer:
                if saved:
                    saved.remove()
                yield answer

    async def release(self, handover: Handover) -> None:
        handover.data.remove()

    async def _see_the_folder(self) -> None:
        """
        Raises:
            NotThisEngine: what the server saves does not come to the folder that this process clears.
        """
        saved = await self.read_prompt(probe(""))
        there = (self._folder / saved.data.file).exists()
        saved.data.remove()
        if not there:
            raise NotThisEngine(f"{self.url} saves its slots elsewhere than in slot_dir, {self._folder}; give that")

    async def _models(self) -> tuple[str, ...]:
        page = await self.upstream.get("/v1/models")
        with speaking(self.url, "llama.cpp"):
            return tuple(model["id"] for model in orjson.loads(page)["data"])

    async def _all_slots(self) -> Slots:
        if self._slots is None:
            page = await self.upstream.get("/props")
            with speaking(self.url, "llama.cpp"):
                self._slots = self._slots or Slots(orjson.loads(page)["total_slots"])
        return self._slots

    async def _restore(self, slot: int, file: str) -> None:
        try:
            await self._move(slot, "restore", file)
        except EngineRefused as error:
            raise KvLost(f"{file}: {error}") from error

    async def _move(self, slot: int, action: str, file: str) -> None:
        await self.upstream.post(f"/slots/{slot}?action={action}", {"filename": file})

    def _expire_later(self, file: str) -> None:
        self._expiries[file] = asyncio.get_running_loop().call_later(self.abilities.lease, self._remove, file)

    def _remove(self, file: str) -> None:
        if expiry := self._expiries.pop(file, None):
            expiry.cancel()
            (self._folder / file).unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Files of a gateway that is no more."""
        for path in self._folder.glob(f"{PREFIX}*{SUFFIX}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > self.abilities.lease:
                    path.unlink()


def _in(slot: int) -> dict[str, Any]:
    return {"id_slot": slot, "cache_prompt": True}


def _rendered(body: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp chooses its template by, so that it must be the same for both legs."""
    return {key: body[key] for key in ("tool_choice", "response_format", "json_schema") if key in body}
