"""The device's end of the link: send features to a tail, get its result.

Works with every narrows server: :mod:`narrows.server`, ``narrows serve``, and the Rust crate.

.. code-block:: python

    with narrows.client.Client("edge-server:7878", bits=4) as client:
        logits = client.run("layer2", features)

    async with narrows.client.AsyncClient("edge-server:7878", bits=4, connections=4) as client:
        results = await asyncio.gather(*(client.run("layer2", x) for x in inputs))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _narrows
from ._narrows import Answer, Decoder, Encoder, Profile
from .errors import LinkError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Answer", "AsyncClient", "Client"]

T = TypeVar("T")


class Client:
    """A blocking client of one server. Threads may share one; they take turns.

    The connection is made again when it is lost; a request is sent again only if it was not answered.

    Args:
        address: ``host:port``.
        encoder: what features are encoded with; None: ``Encoder(bits)``.
        bits: log2 of the number of levels, 1 to 8, if there is no ``encoder``.
        profiles: profiles to offer to the server and to decode its answers with.
        connect_timeout: seconds for a connection and its handshake.
        request_timeout: seconds for a request, lost attempts included.
        attempts: how often a request may be sent.
        token: the bearer token to show. Without TLS anybody on the way can read it.
        ca: PEM of the authorities that the server's certificate may come from; asks for TLS.
        server_name: the name in the server's certificate, if it is not the address's host.
        certificate, key: PEM of the client's own, for mutual TLS.

    Raises:
        LinkError: nobody answers, or does not speak the protocol; DeadlineError: not in time.
        RefusedError: the server refused, and why.
        OptionError: an option outside its range, or a key that TLS cannot work with.
    """

    def __init__(
        self,
        address: str,
        *,
        encoder: Encoder | None = None,
        bits: int = 4,
        profiles: Iterable[Profile] = (),
        connect_timeout: float = 5.0,
        request_timeout: float = 60.0,
        attempts: int = 4,
        token: str | None = None,
        ca: bytes | None = None,
        server_name: str | None = None,
        certificate: bytes | None = None,
        key: bytes | None = None,
    ) -> None:
        profiles = list(profiles)
        self._encoder = encoder if encoder is not None else Encoder(bits)
        self._decoder = Decoder(profiles=profiles)
        self._client = _narrows._Client(
            address,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            attempts=attempts,
            token=token,
            ca=ca,
            server_name=server_name,
            certificate=certificate,
            key=key,
        )
        try:
            for profile in profiles:
                self._client.offer(profile)
        except BaseException:
            self._client.close()
            raise

    @property
    def routes(self) -> list[str]:
        """The models and cuts that the server named when it was last connected to."""
        return self._client.routes

    @property
    def server_software(self) -> str:
        """The server's name for itself."""
        return self._client.server_software

    def run(self, route: str, features: Any, *, timeout: float | None = None) -> Any:
        """Encode ``features``, have the tail at ``route`` run on them, and decode its result.

        Args:
            route: one of :attr:`routes`.
            features: an array as :func:`narrows.encode` takes it.
            timeout: seconds, if not the client's own.

        Returns:
            The tail's result, a NumPy array.

        Raises:
            RefusedError: the server's failure; ``code`` and ``text`` say which.
            DeadlineError, LinkError: no answer.
            NarrowsError: as of :func:`narrows.encode`.
        """
        start = time.perf_counter()
        frame = self._encoder.encode(features)
        answer = self._client.request(route, frame, timeout=timeout, encode_time=time.perf_counter() - start)
        return self._decoder.decode(answer.frame)

    def request(self, route: str, frame: Buffer, *, timeout: float | None = None) -> Answer:
        """Send a frame that is already encoded, and wait for the answer, a frame as well.

        Args:
            route: one of :attr:`routes`.
            frame: what :func:`narrows.encode` gave.
            timeout: seconds, if not the client's own.

        Raises:
            RefusedError: the server's failure; ``code`` and ``text`` say which.
            DeadlineError, LinkError: no answer.
        """
        return self._client.request(route, frame, timeout=timeout)

    def ping(self) -> float:
        """Seconds there and back, without payload or tail.

        Raises:
            DeadlineError, LinkError: no answer.
        """
        return self._client.ping()

    def offer(self, profile: Profile) -> None:
        """Give the server a profile, unless it has it, so that frames may name it.

        Args:
            profile: what the client's encoder was made with, or will be.

        Raises:
            RefusedError: it takes none.
            DeadlineError, LinkError: no answer.
        """
        self._client.offer(profile)
        self._decoder.add_profile(profile)

    def close(self) -> None:
        """End the connection; the client cannot be used further."""
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """A client for asyncio: the blocking one on threads of its own, ``connections`` of them.

    Args:
        address: ``host:port``.
        connections: connections, hence requests at a time.
        options: as of :class:`Client`. A shared ``encoder`` is used by one request at a time.

    Use it with ``async with``; it connects there.

    Raises:
        ValueError: no connections.
        LinkError, RefusedError, OptionError: on entering ``async with``, as :class:`Client`.
    """

    def __init__(self, address: str, *, connections: int = 1, **options: Any) -> None:
        if connections < 1:
            raise ValueError("connections must be at least 1")
        self._make: Callable[[], Client] = lambda: Client(address, **options)
        self._connections = connections
        self._executor = ThreadPoolExecutor(connections, thread_name_prefix="narrows client")
        self._clients: list[Client] = []
        self._idle: asyncio.Queue[Client] = asyncio.Queue()

    async def __aenter__(self) -> AsyncClient:
        loop = asyncio.get_running_loop()
        made = [loop.run_in_executor(self._executor, self._make) for _ in range(self._connections)]
        outcomes = await asyncio.gather(*made, return_exceptions=True)
        self._clients = [outcome for outcome in outcomes if isinstance(outcome, Client)]
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome
        for client in self._clients:
            self._idle.put_nowait(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _with_client(self, work: Callable[[Client], T]) -> T:
        if not self._clients:
            raise LinkError("the client is not connected: use it with `async with`")
        client = await self._idle.get()
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._executor, work, client)
        # A client whose caller was cancelled is free when its request has ended, not before.
        working.add_done_callback(lambda _: self._idle.put_nowait(client))
        return await working

    @property
    def routes(self) -> list[str]:
        """The models and cuts that the server named."""
        return self._clients[0].routes if self._clients else []

    async def run(self, route: str, features: Any, *, timeout: float | None = None) -> Any:
        """As :meth:`Client.run`."""
        return await self._with_client(lambda client: client.run(route, features, timeout=timeout))

    async def request(self, route: str, frame: Buffer, *, timeout: float | None = None) -> Answer:
        """As :meth:`Client.request`."""
        return await self._with_client(lambda client: client.request(route, frame, timeout=timeout))

    async def ping(self) -> float:
        """As :meth:`Client.ping`."""
        return await self._with_client(Client.ping)

    async def close(self) -> None:
        """End the connections, once their requests have ended."""
        clients, self._clients = self._clients, []
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, client.close) for client in clients))
        self._executor.shutdown(wait=False)
