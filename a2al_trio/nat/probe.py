"""The active probe: does the NAT let strangers in, and does it keep one port for all destinations (spec 05 §5, §14)?

A helper echoes to an address that we claim. The reference claims the very mapping its request goes out through,
which opens the filter towards the helper, so that every NAT but a symmetric one passes (§14 N1). Here the request
leaves from a second socket, and the claimed mapping has never been used towards the helper. Two ways:

- the mapping of the main socket, with helpers it has not sent to for a while (`probe_claimed`);
- a mapping of a third, fresh socket, known from a helper at another address (`probe_fresh`), which works at any
  time and tells how the NAT treats every socket of ours.

A helper takes whoever asks for a node that lives where the request came from (§13 no. 4). So requests are signed by
our own node, not by one that nobody would ever find again, and afterwards the main socket pings every helper, so that
it has the right address of ours.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager

import attrs
import trio

from a2al_trio.errors import DecodeError
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.scopes import open_service_nursery
from a2al_trio.wire import (
    NatProbeEcho,
    NatProbeRequest,
    Ping,
    Pong,
    decode_message,
    decode_observed,
    encode_message,
    encode_observed,
    is_public,
)

__all__ = [
    "COLD_AFTER",
    "MAX_HELPERS",
    "ExpectEcho",
    "ProbeFindings",
    "ProbeSocket",
    "Prober",
    "open_probe_socket",
    "probe_claimed",
    "probe_fresh",
]

MAX_HELPERS = 5
COLD_AFTER = 330.0
"""Seconds without sending after which every NAT has closed its filter; RFC 4787 REQ-5 suggests 300."""
SENDS = (1.0, 1.0, 3.0)
"""Seconds to wait after each request: 5 in all, and no more requests than a helper answers in 10 s (spec 05 §5.3)."""

CORRECTION_LIMIT = 2.0
"""Seconds for setting right what helpers think our address is, also when the probe is cancelled."""

ExpectEcho = Callable[[bytes], AbstractContextManager[trio.Event]]


@attrs.frozen
class ProbeFindings:
    """What was found; None where nothing could be.

    `claimed` is the address the helpers sent to, `reachable` whether most of them got through to it, and
    `symmetric` whether the NAT gave one socket different ports for different helpers.
    """

    claimed: SocketAddress | None = None
    reachable: bool | None = None
    symmetric: bool | None = None


@attrs.frozen(kw_only=True)
class Prober:
    """What probes need: `bind` makes a socket on any free port, `identity` is our node's.

    `ping_from_main` pings a node from the main socket; it does not raise when that is silent.
    """

    bind: Callable[[], DatagramSocket]
    identity: Identity
    ping_from_main: Callable[[SocketAddress], Awaitable[object]]
    entropy: Callable[[int], bytes] = os.urandom

    def open_socket(self) -> AbstractAsyncContextManager[ProbeSocket]:
        """A socket of the probe's own."""
        return open_probe_socket(self.bind(), self.identity, entropy=self.entropy)

    @asynccontextmanager
    async def correcting(self, helpers: Sequence[SocketAddress]) -> AsyncIterator[None]:
        """At the end, tell `helpers` where our node is."""
        try:
            yield
        finally:
            with trio.move_on_after(CORRECTION_LIMIT, shield=True):
                async with trio.open_nursery() as nursery:
                    for helper in helpers:
                        nursery.start_soon(self.ping_from_main, helper)


class ProbeSocket:
    """A socket of a probe's own that speaks just enough of the DHT's protocol; made by `open_probe_socket`."""

    def __init__(self, socket: DatagramSocket, identity: Identity, entropy: Callable[[int], bytes]) -> None:
        self._socket = socket
        self._entropy = entropy
        self._identity = identity
        self._pongs: dict[bytes, trio.Event] = {}
        self._echoes: dict[bytes, trio.Event] = {}
        self._observed: dict[bytes, SocketAddress] = {}

    async def run(self) -> None:
        """Take what comes in."""
        while True:
            for received in await self._socket.receive():
                for datagram in received.datagrams():
                    self._take(datagram)

    def _take(self, datagram: memoryview) -> None:
        try:
            message = decode_message(datagram)
            if isinstance(message.body, NatProbeEcho) and message.body.token in self._echoes:
                self._echoes[message.body.token].set()
            elif isinstance(message.body, Pong) and message.transaction_id in self._pongs:
                self._observed[message.transaction_id] = decode_observed(message.body.observed)
                self._pongs[message.transaction_id].set()
        except DecodeError:
            return

    async def ping(self, helper: SocketAddress) -> SocketAddress | None:
        """Where the helper sees this socket; None if it does not answer."""
        transaction_id = self._entropy(20)
        message = encode_message(Ping(self._identity.address), transaction_id, self._identity)
        answered = self._pongs[transaction_id] = trio.Event()
        await self._send_until(message, helper, answered)
        return self._observed.get(transaction_id)

    async def request_echo(
        self, helper: SocketAddress, claimed: SocketAddress, token: bytes, echoed: trio.Event
    ) -> bool:
        """Ask the helper to echo to `claimed`; whether `echoed` came about."""
        request = NatProbeRequest(token, encode_observed(claimed))
        await self._send_until(encode_message(request, self._entropy(20), self._identity), helper, echoed)
        return echoed.is_set()

    def expect_echo(self, token: bytes) -> trio.Event:
        """An event for the arrival of an echo on this socket."""
        return self._echoes.setdefault(token, trio.Event())

    async def _send_until(self, message: bytes, helper: SocketAddress, done: trio.Event) -> None:
        for wait in SENDS:
            self._socket.send_nowait(Transmit(message, len(message), helper))
            with trio.move_on_after(wait):
                await done.wait()
                return


@asynccontextmanager
async def open_probe_socket(
    socket: DatagramSocket, identity: Identity, *, entropy: Callable[[int], bytes] = os.urandom
) -> AsyncIterator[ProbeSocket]:
    """Ask nodes from `socket`, which is closed in the end, in the name of `identity`."""
    try:
        async with open_service_nursery("NAT probe") as nursery:
            probe = ProbeSocket(socket, identity, entropy)
            nursery.start_soon(probe.run)
            yield probe
    finally:
        socket.close()


async def probe_claimed(
    prober: Prober, claimed: SocketAddress, helpers: Sequence[SocketAddress], *, expect_echo: ExpectEcho
) -> ProbeFindings:
    """Probe the mapping `claimed` of the main socket, which must not have sent to `helpers` for `COLD_AFTER` seconds.

    `expect_echo(token)` is how the main socket tells of an echo. Ends within about 12 s.
    """
    helpers = _some(helpers)
    async with prober.correcting(helpers), prober.open_socket() as asker:
        willing = await _find_willing(asker, helpers)
        usable = [helper for helper, seen in willing.items() if seen.host == claimed.host]

        async def is_echoed(helper: SocketAddress) -> bool:
            token = prober.entropy(8)
            with expect_echo(token) as echoed:
                return await asker.request_echo(helper, claimed, token, echoed)

        return ProbeFindings(claimed, await _most_echo(usable, is_echoed), _is_symmetric(willing))


async def probe_fresh(prober: Prober, helpers: Sequence[SocketAddress]) -> ProbeFindings:
    """Probe how the NAT treats a socket that has talked to one helper when the others send to it.

    Needs helpers at two IP addresses at least. Ends within about 17 s.
    """
    helpers = _some(helpers)
    async with prober.correcting(helpers), prober.open_socket() as asker, prober.open_socket() as target:
        willing = await _find_willing(asker, helpers)
        symmetric = _is_symmetric(willing)
        for witness in list(willing)[:1]:  # a second one would only open the filter towards itself
            claimed = await target.ping(witness)
            if claimed is None:
                break
            strangers = [
                helper for helper, seen in willing.items() if helper.host != witness.host and seen.host == claimed.host
            ]

            async def is_echoed(helper: SocketAddress, claimed: SocketAddress = claimed) -> bool:
                token = prober.entropy(8)
                return await asker.request_echo(helper, claimed, token, target.expect_echo(token))

            if strangers:
                return ProbeFindings(claimed, await _most_echo(strangers, is_echoed), symmetric)
    return ProbeFindings(symmetric=symmetric)


def _some(helpers: Sequence[SocketAddress]) -> list[SocketAddress]:
    return list(dict.fromkeys(helpers))[:MAX_HELPERS]


async def _find_willing(asker: ProbeSocket, helpers: Sequence[SocketAddress]) -> dict[SocketAddress, SocketAddress]:
    """The helpers that answer, with the public address each sees the asking socket at; the quickest first."""
    willing: dict[SocketAddress, SocketAddress] = {}

    async def ping(helper: SocketAddress) -> None:
        seen = await asker.ping(helper)
        if seen is not None and is_public(seen.host):
            willing[helper] = seen

    async with trio.open_nursery() as nursery:
        for helper in helpers:
            nursery.start_soon(ping, helper)
    return willing


async def _most_echo(
    helpers: Sequence[SocketAddress], is_echoed: Callable[[SocketAddress], Awaitable[bool]]
) -> bool | None:
    """Whether more than half of the helpers get through; None if there are none.

    Not just any: to one of them the way may happen to be open.
    """
    if not helpers:
        return None
    results: list[bool] = []

    async def ask(helper: SocketAddress) -> None:
        results.append(await is_echoed(helper))

    async with trio.open_nursery() as nursery:
        for helper in helpers:
            nursery.start_soon(ask, helper)
    return 2 * sum(results) > len(results)


def _is_symmetric(willing: dict[SocketAddress, SocketAddress]) -> bool | None:
    """Whether helpers at different addresses all see different ports of one socket."""
    by_host = {helper.host: seen for helper, seen in willing.items()}
    if len(by_host) < 2:
        return None
    return len({seen.port for seen in by_host.values()}) == len(by_host)
