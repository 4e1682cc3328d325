"""The process: uvicorn with the patience of this server, and an end that finishes what is in flight."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from headclip.errors import InputError

_HEADER_SECONDS = 10.0
_STALL_SECONDS = 20.0  # between two looks at a client that does not keep up with what it is sent
_LEAST_PACE = 4096  # bytes a second that it has to take
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ImpatientProtocol(H11Protocol):
    """Closes connections whose request line and headers do not come, or that do not take their answer; uvicorn would
    wait for ever, and keep the answer, which with maps in it can have hundreds of megabytes.

    Bodies that do not come are refused by the application, with an answer.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._watch_taking(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._header_timer is None and self.timeout_keep_alive_task is None:
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._watch_taking(None)
        super().resume_writing()

    def _watch_taking(self, waiting: int | None) -> None:
        """Look again in a while whether less than these bytes wait; None: all is well."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if waiting is not None:
            self._stall_timer = self.loop.call_later(_STALL_SECONDS, self._look_at_taking, waiting)

    def _look_at_taking(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting > before - _LEAST_PACE * _STALL_SECONDS:
            self._stall_timer = None
            self.transport.abort()  # close() would wait until the client has taken everything
        else:
            self._watch_taking(waiting)

    def _arm(self) -> None:
        self._header_timer = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self.transport.close()


class _Server(uvicorn.Server):
    """Calls `ready` once the socket listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM asks for an orderly end, and that is all: uvicorn would raise it once more afterwards, which is a
        KeyboardInterrupt here, and the status of an interruption."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that holds an address; port 0 takes a free one.

    Raises:
        InputError: the address is taken, is not one of this machine, or is none.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as held:
            opened = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            held.pop_all()  # the caller's from here on
    except (OSError, UnicodeError) as error:  # the latter of names that no host can have
        reason = error.strerror if isinstance(error, OSError) else "this is no name of a host"
        raise InputError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
    return opened


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in _LOOPBACK or host.startswith("127.")


def allowed_hosts(host: str, more: list[str]) -> frozenset[str] | None:
    """Names that a Host header may have. An address that others can reach has names we do not know: any, unless
    some are given."""
    if not is_loopback(host) and not more:
        return None
    return _LOOPBACK | {host.lower(), *(name.lower() for name in more)}


def run_server(app: FastAPI, listening: socket.socket, *, grace: float, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; then take nothing more, answer what is in flight, and return; after SIGINT with a
    KeyboardInterrupt.

    grace: seconds after which connections that are still open are closed.
    """
    _Server(configuration(app, grace), ready).run(sockets=[listening])


def configuration(app: FastAPI, grace: float) -> uvicorn.Config:
    """How uvicorn runs an application of ours."""
    options: dict[str, Any] = {
        "http": ImpatientProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": max(1, round(grace)),
        "h11_max_incomplete_event_size": 32 * 1024,
    }
    return uvicorn.Config(app, **options)
