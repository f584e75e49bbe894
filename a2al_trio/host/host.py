"""The host: one process-level runtime with a DHT node, a QUIC endpoint and any number of agents (spec 04)."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from a2al_trio.dht import Dht, Publication
from a2al_trio.dht.report import Json
from a2al_trio.errors import ConfigurationError, ConnectionLost, StreamReset, StreamStopped
from a2al_trio.host.accept import Admission
from a2al_trio.host.access import AccessRule
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.hubs import HubRegistrations
from a2al_trio.host.mailbox import Mailbox
from a2al_trio.host.outgoing import Outgoing
from a2al_trio.host.pool import ConnectionPool
from a2al_trio.host.publish import Publisher
from a2al_trio.host.records import EndpointRecord, Records
from a2al_trio.host.report import debug_data
from a2al_trio.host.tcp import answer_from_tcp, forward_tcp
from a2al_trio.host.topics import Topics
from a2al_trio.host.web import WebAgent, WebConnection
from a2al_trio.identity import Address, Identity
from a2al_trio.nat.sense import NatSense
from a2al_trio.net.address import SocketAddress
from a2al_trio.punch import PunchPool
from a2al_trio.quic import QuicConnection
from a2al_trio.wire import EndpointPayload, NatType, SignedRecord

if TYPE_CHECKING:
    import httpx
    import httpx2

    from a2al_trio.http import Application

__all__ = ["Host", "HostParts"]

logger = logging.getLogger(__name__)

C = TypeVar("C")


@attrs.frozen(kw_only=True)
class HostParts:
    """What a host is made of; `assembly` puts it together."""

    agents: AgentTable
    dht: Dht
    hubs: HubRegistrations
    admission: Admission
    publisher: Publisher
    connections: weakref.WeakSet[AgentConnection]
    punches: PunchPool
    outgoing: Outgoing
    pool: ConnectionPool
    http_pool: ConnectionPool
    mailbox: Mailbox
    topics: Topics
    records: Records


class Host:
    """A running host; made by `open_host` only."""

    def __init__(self, parts: HostParts) -> None:
        self._parts = parts
        self._surroundings = parts.publisher.surroundings
        self.dht = parts.dht
        """The DHT node."""
        self.punches = parts.punches
        """Connections to DHT nodes that plain UDP does not reach; it keeps them by itself."""
        self.pool = parts.pool
        """Connections shared by those who dial the same agent again and again."""
        self.http_pool = parts.http_pool
        """Connections for HTTP, shared likewise.

        Their `alpn` is "h3" if the agent serves HTTP/3, and else that of agent connections, on whose streams HTTP/1.1
        is spoken.
        """
        self.mailbox = parts.mailbox
        """Encrypted notes to agents and from them."""
        self.topics = parts.topics
        """Announcing agents under topics, and finding them."""
        self.records = parts.records
        """Profiles and other records under an agent's AID."""
        self.signal_stats: Callable[[], Mapping[str, Json]] | None = None
        """What `/debug/stats` shows as `signal`."""
        self.beacon_stats: Callable[[], Mapping[str, Json]] | None = None
        """What `/debug/stats` shows beside the DHT's counts."""

    @property
    def address(self) -> Address:
        """The AID of the default agent, which is also the node's."""
        return self._parts.agents.default.address

    @property
    def agents(self) -> frozenset[Address]:
        """The AIDs of all agents of this host."""
        return self._parts.agents.addresses

    @property
    def dht_address(self) -> SocketAddress:
        """The local address of the DHT's socket."""
        return self.dht.local_address

    @property
    def quic_address(self) -> SocketAddress:
        """The local address of QUIC's socket; the same one in the shared layout (spec 04 §2.1)."""
        return self._surroundings.quic_address

    @property
    def sense(self) -> NatSense:
        """What peers say our public address is."""
        return self._surroundings.sense

    @property
    def signal_urls(self) -> tuple[str, ...]:
        """The hubs we want to be called at, best first: those configured, else those of the bootstrap nodes."""
        return self._parts.hubs.candidates

    @property
    def active_signal_urls(self) -> tuple[str, ...]:
        """Those of them at which we are registered now; endpoint records name these."""
        return self._parts.hubs.published

    @property
    def connections(self) -> tuple[AgentConnection, ...]:
        """The live agent connections, incoming and outgoing, in no order."""
        return tuple(connection for connection in self._parts.connections if connection.close_reason is None)

    @property
    def access(self) -> AccessRule | None:
        """Who may open streams to which of our agents: a function of local AID, remote AID and tokens.

        None, the default, lets every caller in; a stream that is refused is reset with code 0x41 (spec 08 §4).
        """
        return self._parts.admission.access

    @access.setter
    def access(self, rule: AccessRule | None) -> None:
        self._parts.admission.access = rule

    def debug(self, section: str) -> Json:
        """The data of a `/debug` page: identity, routing, store, stats, host or connections (spec 04 §14)."""
        return debug_data(self, section)

    @property
    def nat_type(self) -> NatType:
        """The kind of NAT before this host, as far as it is known; it is published."""
        return self._surroundings.nat_type

    def nat_hint(self) -> str:
        """What a user should know about being reached; empty if there is nothing to say (spec 05 §10)."""
        return self._surroundings.hint()

    async def run_nat_probe(self) -> None:
        """Have other nodes test whether strangers reach us; `nat_type` has the result (spec 05 §5).

        The host does this by itself from time to time; while it does, this waits for the result.
        """
        await self._surroundings.run_nat_probe()

    async def observe_from_peers(self, addresses: Sequence[SocketAddress]) -> None:
        """Ask the nodes at these addresses where they see us; those that are silent are left out."""
        await self._surroundings.observe_from_peers(addresses)

    async def observe_from_routing(self, count: int = 8) -> int:
        """Ask up to `count` nodes that we know where they see us; returns how many were asked."""
        return await self._surroundings.observe_from_routing(count)

    def invalidate_network_caches(self) -> None:
        """Forget what is known of our address and of the NAT; port mappings stay (spec 04 §20)."""
        self._surroundings.invalidate_network_caches()

    def register_agent(self, identity: Identity) -> None:
        """Add an agent; call `publish` afterwards to make it resolvable.

        Raises ConfigurationError if it is registered already, or if its key or delegation proof does not fit.
        """
        self._parts.agents.register(identity)
        self._parts.hubs.agents_changed()

    def unregister_agent(self, address: Address) -> None:
        """Remove an agent and stop keeping its record alive; the default agent and unknown ones stay as they are."""
        if address != self.address:
            self._parts.publisher.forget(address)
            self._parts.agents.unregister(address)
            self._parts.hubs.agents_changed()
            self.mailbox.forget(address)

    def build_endpoint_payload(self) -> EndpointPayload:
        """What this host would publish now; raises NoRoute if it knows no address of its own."""
        return self._parts.publisher.build_payload()

    async def publish(self) -> tuple[Publication, ...]:
        """Publish the endpoint records of all agents and keep them fresh while the host lives.

        Each record is in the DHT when this returns, at as many nodes as took it. Raises NoRoute if no address is known
        at which others could reach this host; the records are then published as soon as one is. If the record of one
        agent cannot be published, those of the others are, and then its error is raised.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._parts.hubs.wait_tried)
            nursery.start_soon(self._surroundings.prepare)
        return await self._parts.publisher.publish_all()

    async def publish_endpoint(
        self,
        *,
        agent: Address | None = None,
        payload: EndpointPayload | None = None,
        sequence: int | None = None,
        ttl: int | None = None,
    ) -> Publication:
        """Publish one agent's endpoint record once, with what is given in place of what we would choose.

        `ttl` is in seconds. Raises StaleRecord if `sequence` is not above the one published before.
        """
        return await self._parts.publisher.publish(agent, payload=payload, sequence=sequence, ttl=ttl)

    async def publish_record(self, record: SignedRecord) -> Publication:
        """Publish a signed record of a sovereign type, 0x01 to 0x0F; raises ConfigurationError for others."""
        if not 1 <= record.record_type <= 0x0F:
            raise ConfigurationError(f"record type {record.record_type:#x} is not sovereign; use 0x01 to 0x0F")
        return await self.dht.publish(record)

    async def resolve(self, peer: Address) -> EndpointRecord:
        """Look up the endpoint record of an agent.

        Raises RecordNotFound if nobody holds one, RecordInvalid if what they hold cannot be used.
        """
        return await self._parts.outgoing.resolve(peer)

    async def find_records(self, peer: Address, record_type: int = 0) -> list[SignedRecord]:
        """All records published under an agent's AID, of one type or (0) of all."""
        return await self.records.find(peer, record_type)

    async def open_connection(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AgentConnection:
        """Connect to an agent and hand the connection over to the caller, who must close it.

        Resolves the AID unless given a `record`, or one address with `at`. `local` picks the agent we dial as.
        Raises ResolveError (RecordInvalid also for a given record that is expired or another agent's), or ConnectError
        naming every attempt with its reason; IdentityMismatch if somebody else answers.
        """
        return await self._parts.outgoing.open(peer, at=at, record=record, local=local)

    @asynccontextmanager
    async def connect(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AsyncIterator[AgentConnection]:
        """Connect to an agent for the length of a block, then close with code 0; see `open_connection`."""
        async with await self.open_connection(peer, at=at, record=record, local=local) as connection:
            yield connection

    async def accept(self) -> AgentConnection:
        """Wait for the next incoming connection, its peer proven and its agent known; the caller must close it."""
        return await self._parts.admission.accept()

    async def serve(
        self,
        handler: Callable[[AgentConnection], Awaitable[object]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run `handler` in a task for every incoming connection until cancelled; returning closes the connection.

        A handler whose connection the peer ends is over quietly, as is one to which a stream is reset or stopped, and
        one whose tasks end so; any other error propagates. Raises ClosedResourceError when the host is closed.
        """
        async with _open_handlers() as nursery:
            task_status.started()
            while True:
                connection = await self.accept()
                nursery.start_soon(_handle, handler, connection, connection)

    async def serve_http3(
        self,
        handler: Callable[[WebConnection], Awaitable[object]],
        *,
        web: Iterable[WebAgent] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Offer HTTP/3 until cancelled, and run `handler` for every caller that takes it; returning says goodbye.

        `web` lets agents be reached by HTTP/3 clients that are no agents; without, every caller proves its AID.
        The handler asks `allows` before it answers a request. Its errors are treated as by `serve`. Raises
        ConfigurationError for what cannot be in `web`.
        """
        with ExitStack() as door:
            connections = door.enter_context(self._parts.admission.tls.web.open(web))
            async with _open_handlers() as nursery:
                task_status.started()
                try:
                    async for connection in connections:
                        nursery.start_soon(_handle, handler, connection, connection.quic)
                finally:
                    door.close()  # nobody may come in while the handlers say goodbye

    def allows(self, local: Address, remote: Address | None, tokens: Sequence[str] = ()) -> bool:
        """Whether `access` lets a caller use an agent of ours; `remote` is None for an anonymous one."""
        return self._parts.admission.allows(local, remote, tokens)

    # --- the web -------------------------------------------------------------------------------------------------

    def http_client(
        self,
        *,
        local: Address | None = None,
        token: str = "",
        **settings: Any,  # noqa: ANN401 - httpx checks them
    ) -> httpx.AsyncClient:
        """An httpx client that calls agents: `await client.get("a2al://AID/path")`.

        Requests share `http_pool`, whose connections outlive the client. One whose connection proves dead is repeated
        once if it may be; one that an agent has not processed is sent again. `local` is the agent that calls, the
        default one unless given; `token` is a ticket for agents that ask for one. `settings` are httpx's own; unlike
        httpx's the client has no time limits unless given `timeout`. Why an agent cannot be reached is the cause of
        `httpx.ConnectError`.

        Raises ConfigurationError if httpx is not installed (`pip install 'a2al-trio[http]'`).
        """
        with _installed("http", "http_client needs httpx"):
            from a2al_trio.http.client import Pools, httpx_client
        return httpx_client(Pools(self.http_pool, self.pool), local=local, token=token, **settings)

    def httpx2_client(
        self,
        *,
        local: Address | None = None,
        token: str = "",
        **settings: Any,  # noqa: ANN401 - httpx2 checks them
    ) -> httpx2.AsyncClient:
        """The same as `http_client` for httpx2, the continuation of httpx that MCP's library uses.

        Raises ConfigurationError if it is not installed (`pip install 'a2al-trio[httpx2]'`).
        """
        with _installed("httpx2", "httpx2_client needs httpx2 and httpx"):
            from a2al_trio.http.client import Pools
            from a2al_trio.http.httpx2_client import httpx2_client
        return httpx2_client(Pools(self.http_pool, self.pool), local=local, token=token, **settings)

    async def serve_asgi(
        self,
        app: Application,
        *,
        http3: bool = True,
        web: Iterable[WebAgent] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Have an ASGI 3 application answer the callers of all agents of this host, until cancelled.

        Each request finds in `scope["extensions"]["a2al.peer"]` who calls (`aid`), which agent is called (`agent`) and
        how the caller is reached (`path`); the header `a2al-peer` holds the caller's AID too. Both are proven by the
        caller's certificate. A caller that cancels a request cancels the application's work on it.

        Callers of our kind come over HTTP/3, unless `http3` is False or pylsqpack is not installed
        (`pip install 'a2al-trio[h3]'`); all others over HTTP/1.1 on agent streams. `web` names agents that any HTTP/3
        client may call, such as a browser; what it may do there is for `access` to say, with None as the caller.

        Raises ApplicationFailed if the application says that it cannot start. Its errors in a request are logged, and
        answered with status 500.
        """
        from a2al_trio.http.server import serve_asgi

        await serve_asgi(self, app, http3=http3, web=web, task_status=task_status)

    # --- TCP -----------------------------------------------------------------------------------------------------

    async def serve_tcp(
        self, service: tuple[str, int], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Forward every stream of every caller to a TCP service, given as host and port, until cancelled.

        A service that does not accept within 5 s is said to the caller by resetting the stream with 0x43, so that it
        can be told from an empty answer (spec 04 §17 D21).
        """
        if len(service) != 2:  # a text, most likely
            raise ConfigurationError(f'serve_tcp takes host and port, as in ("127.0.0.1", 8000), not {service!r}')
        await self.serve(partial(answer_from_tcp, service=service), task_status=task_status)

    async def forward_tcp(
        self,
        peer: Address,
        listeners: list[trio.SocketListener],
        *,
        local: Address | None = None,
        token: str = "",
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Connect every TCP client of `listeners` to an agent by a stream of its own, until cancelled.

        The agent is dialled when somebody comes, and again when the connection has died. A client whose stream cannot
        be had is hung up on; the reason is in the log. `local` and `token` are as in `http_client`. The listeners are
        closed in the end.
        """
        await forward_tcp(self.pool, peer, listeners, local=local, token=token, task_status=task_status)


@contextmanager
def _installed(extra: str, need: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(f"{need}: pip install 'a2al-trio[{extra}]'") from error


@asynccontextmanager
async def _open_handlers() -> AsyncIterator[trio.Nursery]:
    """A nursery for handlers, which says in one error that the host was closed under all of them."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        if group.split(trio.ClosedResourceError)[1] is None:
            raise trio.ClosedResourceError("this host was closed") from group
        raise


async def _handle(
    handler: Callable[[C], Awaitable[object]], connection: C, resource: AgentConnection | QuicConnection
) -> None:
    async with resource:
        try:
            await handler(connection)
        except* (ConnectionLost, StreamReset, StreamStopped) as ended:
            # In a group, when the handler runs a task per stream.
            if resource.close_reason is None and ended.subgroup(ConnectionLost) is not None:
                raise  # some other connection of the handler's
            logger.debug("%r ended: %s", connection, ended.exceptions)
