"""The cloud's end of the link: run tails that are Python functions.

Serves every narrows client: :mod:`narrows.client`, ``narrows run``, and the Rust crate.

.. code-block:: python

    def classify(features):            # a NumPy array, decoded
        return model_tail(features)    # a float array, sent without loss

    with narrows.server.Server({"layer2": classify}, "0.0.0.0:7878") as server:
        server.wait()

With ``async with AsyncServer(...)`` tails may be coroutine functions; they run on the loop that started the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from . import _narrows
from ._narrows import Decoder, Encoder, Profile
from .errors import NarrowsError

__all__ = ["AsyncServer", "Server", "Tail"]

#: A tail: from the decoded features (a NumPy array) to the result (a float array of any library).
Tail = Callable[[Any], Any]

#: Profiles taken from clients, at most, besides the server's own; as `narrows serve` has it.
MAX_BROUGHT_PROFILES = 256

# Codes of the protocol (docs/protocol.md).
_UNKNOWN_ROUTE, _BAD_PAYLOAD, _TAIL_FAILED = 16, 17, 19


class _Handler:
    """What the Rust server asks; called from its threads."""

    def __init__(self, tails: Mapping[str, Tail], profiles: Iterable[Profile]) -> None:
        self._tails = dict(tails)
        self._lock = threading.Lock()
        self._profiles = {hashlib.sha256(profile.to_bytes()).digest(): profile for profile in profiles}
        self._brought = 0
        self._local = threading.local()

    def _coders(self) -> tuple[Decoder, Encoder]:
        """This thread's, with all profiles that are known now."""
        known = len(self._profiles)
        if getattr(self._local, "known", None) != known:
            with self._lock:
                profiles = list(self._profiles.values())
            self._local.coders = (Decoder(profiles=profiles), Encoder(quantizer="lossless"))
            self._local.known = len(profiles)
        coders: tuple[Decoder, Encoder] = self._local.coders
        return coders

    def answer(self, route: str, frame: bytes) -> tuple[bytes, int, int, int] | tuple[int, str]:
        tail = self._tails.get(route)
        if tail is None:
            return _UNKNOWN_ROUTE, f"no route named {route!r} is served here"
        decoder, encoder = self._coders()
        start = time.perf_counter_ns()
        try:
            features = decoder.decode(frame)
        except NarrowsError as error:
            return _BAD_PAYLOAD, str(error)
        decoded = time.perf_counter_ns()
        try:
            result = encoder.encode(tail(features))
        except Exception as error:  # whatever the tail raises is the client's to know
            return _TAIL_FAILED, f"{type(error).__name__}: {error}"
        return result, decoded - start, time.perf_counter_ns() - decoded, features.nbytes

    def has_profile(self, name: bytes) -> bool:
        return name in self._profiles

    def take_profile(self, name: bytes, contents: bytes) -> str | None:
        try:
            profile = Profile.from_bytes(contents)
        except NarrowsError as error:
            return str(error)
        with self._lock:
            if name not in self._profiles:
                if self._brought >= MAX_BROUGHT_PROFILES:
                    return f"clients have brought {MAX_BROUGHT_PROFILES} profiles already, no more are taken"
                self._profiles[name] = profile
                self._brought += 1
        return None


class Server:
    """A server on threads of its own, from its making until :meth:`stop`.

    Args:
        tails: a function for each route, from the features (a NumPy array) to the result (a float32, float16 or bfloat16
            array). Functions are called from several threads.
        address: ``host:port``; port 0 takes a free one, which :attr:`address` tells.
        profiles: profiles that frames may name, besides those that clients bring.
        workers: requests computed at the same time; None: one for each core.
        tokens: whoever shows one of these is served; with none, everybody is.
        certificate, key: PEM of the server's, for TLS.
        client_ca: PEM of the authorities that clients' certificates must come from, for mutual TLS.
        max_message_bytes: the longest request, header included; None: 64 MiB.
        max_in_flight: open requests of all connections; None: 1024.
        drain_timeout: seconds for open requests to be answered once it is told to stop; None: 30.

    A tail that raises fails its own request only: the client gets a :class:`~narrows.errors.RefusedError`.

    Raises:
        LinkError: the address cannot be had.
        OptionError: an option outside its range.
    """

    def __init__(
        self,
        tails: Mapping[str, Tail],
        address: str = "127.0.0.1:0",
        *,
        profiles: Iterable[Profile] = (),
        workers: int | None = None,
        tokens: Iterable[str] = (),
        certificate: bytes | None = None,
        key: bytes | None = None,
        client_ca: bytes | None = None,
        max_message_bytes: int | None = None,
        max_in_flight: int | None = None,
        drain_timeout: float | None = None,
    ) -> None:
        self._server = _narrows._Server(
            _Handler(tails, profiles),
            list(tails),
            address,
            workers=workers,
            tokens=list(tokens),
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            max_message_bytes=max_message_bytes,
            max_in_flight=max_in_flight,
            drain_timeout=drain_timeout,
        )
        self._stopped = threading.Event()
        # Its threads call Python: they must end before the interpreter does.
        self._end = weakref.finalize(self, self._server.stop)

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        return self._server.address

    def wait(self) -> None:
        """Wait until the server is stopped, by another thread or by Ctrl-C (which raises KeyboardInterrupt)."""
        self._stopped.wait()

    def stop(self) -> None:
        """Accept no more requests, answer those in flight, end all connections."""
        self._stopped.set()
        self._end()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class AsyncServer:
    """A server for asyncio: tails may be coroutine functions, which run on the loop.

    Takes the arguments of :class:`Server`. Use it with ``async with``; it listens from there on.
    """

    def __init__(
        self,
        tails: Mapping[str, Callable[[Any], Awaitable[Any]] | Tail],
        address: str = "127.0.0.1:0",
        **options: Any,
    ) -> None:
        self._tails, self._address, self._options = dict(tails), address, options
        self._server: Server | None = None

    async def __aenter__(self) -> AsyncServer:
        loop = asyncio.get_running_loop()

        def on_loop(tail: Callable[[Any], Any]) -> Tail:
            if not inspect.iscoroutinefunction(tail):
                return tail
            return lambda features: asyncio.run_coroutine_threadsafe(tail(features), loop).result()

        tails = {route: on_loop(tail) for route, tail in self._tails.items()}
        self._server = await asyncio.to_thread(Server, tails, self._address, **self._options)
        return self

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        if self._server is None:
            raise RuntimeError("the server does not listen yet: use it with `async with`")
        return self._server.address

    async def wait(self) -> None:
        """Wait until the server is stopped."""
        if self._server is not None:
            await asyncio.to_thread(self._server.wait)

    async def stop(self) -> None:
        """As :meth:`Server.stop`."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
