"""What a service manager (systemd, Type=notify) is told: sd_notify(3), a datagram of lines to the socket it names."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger("fluidgate.gateway")


class ServiceManager:
    """Who started this process, if it wants to be told; if nobody does, every call does nothing."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """
        Args:
            address: of its socket: a path, or a name after "@"; empty for none.
            watchdog: it ends a process that is silent for so long, s.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> ServiceManager:
        """The one that the environment names."""
        address = environment.get("NOTIFY_SOCKET", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return ServiceManager(address, int(microseconds) / 1e6 if watched and microseconds.isdigit() else None)

    def ready(self, status: str) -> None:
        """Requests are taken.

        From here on the running event loop keeps the watchdog quiet: where the loop stands, nobody does.
        """
        self._tell("READY=1", f"STATUS={status}")
        if self._address and self._watchdog:
            self._keep_quiet(asyncio.get_running_loop(), self._watchdog / 2)

    def status(self, text: str) -> None:
        """One line on what goes on, for `systemctl status`."""
        self._tell(f"STATUS={text}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The settings are read again within the context."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self, status: str) -> None:
        """No new requests are taken any more."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def _keep_quiet(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._tell("WATCHDOG=1")
        loop.call_later(seconds, self._keep_quiet, loop, seconds)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told %s (%s)", lines[0], error.strerror or error)
