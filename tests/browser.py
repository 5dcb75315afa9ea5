"""A headless Chromium, spoken to by its DevTools protocol: no driver and no further package is needed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
START_SECONDS = 60.0


def needs_chromium() -> str:
    """The path of a Chromium. The test is skipped where there is none, unless FLUIDGATE_NEEDS_CHROMIUM=1."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get("FLUIDGATE_NEEDS_CHROMIUM") == "1":
            pytest.fail("no chromium is found; install Debian's `chromium`")
        pytest.skip("no chromium is found")
    return found


class Tab:
    """A page in the browser.

    Attributes:
        errors: what went wrong in it: exceptions, errors on the console, and what its security policy forbade.
        requested: URLs that it has asked for.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self.requested: list[str] = []
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def order(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry out a method of the protocol."""
        number = len(self._answers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
        answer = await self._answers[number]
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.order(f"{domain}.enable")
        self._loaded.clear()
        await self.order("Page.navigate", url=url)
        async with asyncio.timeout(START_SECONDS):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """Of an expression in JavaScript."""
        found = await self.order("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    async def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true, as JavaScript has it."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.value(f"Boolean({expression})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = await self.value("document.body.innerText")
            raise AssertionError(f"never was true: {expression}; errors: {self.errors}; the page:\n{shown}") from None

    async def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.order("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def write(self, text: str) -> None:
        """Into what has the focus."""
        await self.order("Input.insertText", text=text)

    async def look(self, width: int, height: int, scheme: str = "light", scale: float = 1.0) -> None:
        """The size of the window, px, and which colours are preferred."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        await self.order("Emulation.setDeviceMetricsOverride", **size)
        await self.order("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self) -> bytes:
        """A PNG of the window."""
        return b64decode((await self.order("Page.captureScreenshot", format="png"))["data"])

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers[told["id"]].set_result(told)
            else:
                self._note(told["method"], told.get("params", {}))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error" and params["entry"]["source"] != "network":
                self.errors.append(params["entry"]["text"])
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])


@asynccontextmanager
async def browser(chromium: str, folder: Path) -> AsyncIterator[Tab]:
    """A browser with one empty tab and a fresh profile, in `folder`."""
    profile = folder / "chromium"
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank", stdout=log, stderr=log
        )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                yield tab
                await tab.close()
    finally:
        process.kill()
        await process.wait()


async def _port(path: Path) -> int:
    """Where it listens, once it does."""
    async with asyncio.timeout(START_SECONDS):
        while not (path.exists() and path.read_text().strip()):
            await asyncio.sleep(0.05)
    return int(path.read_text().split()[0])
