"""`a2al-trio doctor`: what kind of network this is, and what will work in it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs
import click
import trio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from a2al_trio.cli.parameters import NODE, URL
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import console, json_option, print_json
from a2al_trio.host import HostConfig, open_host_over
from a2al_trio.host.config import parse_endpoint
from a2al_trio.ice import SystemNetwork
from a2al_trio.identity import Identity
from a2al_trio.nat.diagnosis import Findings, Level, StunFinding, Verdict, conclude
from a2al_trio.nat.external import fetch_public_host, resolve_server
from a2al_trio.nat.portmap import open_port_mapper
from a2al_trio.nat.stun_client import StunClient, StunFailed, open_stun_client
from a2al_trio.nat.watch import outbound_hosts
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.interfaces import local_addresses
from a2al_trio.net.mux import Mux, open_mux
from a2al_trio.wire import NatType

__all__ = ["doctor"]

COLOURS = {Level.GOOD: "green", Level.FAIR: "yellow", Level.BAD: "red", Level.UNKNOWN: "dim"}


@click.command()
@click.option("--stun", multiple=True, metavar="HOST[:PORT]", help="A STUN server to ask; two tell more than one.")
@click.option("--web", multiple=True, type=URL, metavar="URL", help="A web page that shows one's IP address.")
@click.option("--bootstrap", "-b", multiple=True, type=NODE, metavar="HOST:PORT", help="Node to join through.")
@click.option("--map-port", is_flag=True, help="Ask the router to forward a port, and give it back afterwards.")
@click.option("--listen", default="", metavar="[IP]:PORT", help="UDP address; default: any free port.")
@json_option
@run_async
async def doctor(
    stun: tuple[str, ...],
    web: tuple[str, ...],
    bootstrap: tuple[str, ...],
    map_port: bool,
    listen: str,
    as_json: bool,
) -> None:
    """Tell what will work in this network.

    Nobody is contacted but those you name, and with --map-port the router.
    """
    async with open_mux(parse_endpoint(listen, setting="--listen")) as mux:
        findings = Findings(
            local_address=mux.quic.local_address,
            local_hosts=tuple(address.host for address in local_addresses()),
            outbound=outbound_hosts(),
        )
        if stun:
            console().print("asking STUN servers ...", style="dim")
            findings = await _ask_stun(findings, mux, stun)
        if web:
            console().print("asking web services ...", style="dim")
            findings = attrs.evolve(findings, web_host=await fetch_public_host(web))
        if map_port:
            console().print("asking the router ...", style="dim")
            findings = await _ask_router(findings)
        if bootstrap:
            console().print("joining the network ...", style="dim")
            findings = await _ask_network(findings, mux, bootstrap)
    verdicts = conclude(findings)
    if as_json:
        print_json(**_as_data(findings, verdicts))
    else:
        _print(verdicts)


async def _ask_stun(findings: Findings, mux: Mux, servers: Sequence[str]) -> Findings:
    """Where each server sees our socket; one that can also answers from elsewhere (RFC 5780)."""
    found: list[StunFinding] = []
    strangers: list[bool] = []

    async def ask(stun: StunClient, server: str) -> None:
        addresses = await resolve_server(server, ipv6=mux.stun.local_address.is_ipv6)
        if not addresses:
            found.append(StunFinding(server, None, "the name does not resolve"))
        for address in addresses:
            try:
                answer = await stun.query(address)
            except StunFailed as error:
                found.append(StunFinding(server, None, str(error)))
                continue
            found.append(StunFinding(server, answer.mapped))
            if answer.other is not None and not address.is_ipv6:
                strangers.append(await stun.can_be_reached_from_elsewhere(address))

    async with open_stun_client(mux.stun) as stun, trio.open_nursery() as nursery:
        for server in dict.fromkeys(servers):
            nursery.start_soon(ask, stun, server)
    return attrs.evolve(findings, stun=tuple(found), open_to_strangers=any(strangers) if strangers else None)


async def _ask_router(findings: Findings) -> Findings:
    async with open_port_mapper(findings.local_address.port, on_change=lambda: None) as mapper:
        await mapper.settled()
        return attrs.evolve(findings, mapped=mapper.mapped, mapped_by=mapper.method, mapping_failures=mapper.failures)


async def _ask_network(findings: Findings, mux: Mux, bootstrap: tuple[str, ...]) -> Findings:
    """What the nodes of the network say, and whether they get through to us."""
    findings = attrs.evolve(findings, nodes_asked=len(bootstrap))
    config = HostConfig(bootstrap=bootstrap)
    async with open_host_over(mux, Identity.generate(os.urandom), config, network=SystemNetwork()) as host:
        if not await host.dht.bootstrapped():
            return findings
        await host.observe_from_routing()
        await host.run_nat_probe()
        now = trio.current_time()
        reachable = host.sense.reachable(now)
        return attrs.evolve(
            findings,
            peers=len(host.dht.contacts()),
            observed=host.sense.trusted(now),
            nat_type=host.nat_type,
            open_to_strangers=findings.open_to_strangers if reachable is None else reachable,
        )


def _print(verdicts: Sequence[Verdict]) -> None:
    table = Table.grid(padding=(0, 2))
    for verdict in verdicts:
        colour = COLOURS[verdict.level]
        table.add_row(verdict.subject, f"[{colour}]{verdict.level.value}[/]", escape(verdict.text))
    Console().print(table)


def _as_data(findings: Findings, verdicts: Sequence[Verdict]) -> dict[str, object]:
    def plain(value: object) -> object:
        if isinstance(value, NatType):
            return value.name.lower()
        if isinstance(value, StunFinding):
            return {"server": value.server, "mapped": plain(value.mapped), "failure": value.failure}
        if isinstance(value, SocketAddress):
            return str(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {
        "findings": {field.name: plain(getattr(findings, field.name)) for field in attrs.fields(Findings)},
        "verdicts": [
            {"subject": verdict.subject, "level": verdict.level.value, "text": verdict.text} for verdict in verdicts
        ],
    }
