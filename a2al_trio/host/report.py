"""What a host tells about itself under `/debug` (spec 04 §14); plain data for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from a2al_trio.errors import ConfigurationError

if TYPE_CHECKING:
    from a2al_trio.dht.report import Json
    from a2al_trio.host.connection import AgentConnection
    from a2al_trio.host.host import Host

__all__ = ["DEBUG_SECTIONS", "debug_data"]

DEBUG_SECTIONS = ("identity", "routing", "store", "stats", "host", "connections")
DHT_LEVEL_ONLY = ("estimate_confidence", "verified_peers_1h")
"""Statistics that the reference shows of a bare DHT node, but not of a host."""


def debug_data(host: Host, section: str) -> Json:
    """The data of one page; raises ConfigurationError for a section that does not exist."""
    match section:
        case "identity" | "routing" | "store":
            return host.dht.debug(section)
        case "stats":
            return _stats(host)
        case "host":
            return _host(host)
        case "connections":
            return [_connection(connection) for connection in host.connections]
        case _:
            raise ConfigurationError(f"no debug section {section!r}: use {', '.join(DEBUG_SECTIONS)}")


def _stats(host: Host) -> Json:
    page = host.dht.debug("stats")
    assert isinstance(page, dict), "statistics are an object"
    for name in DHT_LEVEL_ONLY:
        page.pop(name, None)
    if host.signal_stats is not None and (signal := host.signal_stats()):
        page["signal"] = dict(signal)
    if host.beacon_stats is not None:
        page.update(host.beacon_stats())
    return page


def _host(host: Host) -> Json:
    now = trio.current_time()
    nat_type = host.nat_type
    page: dict[str, Json] = {
        "address": str(host.address),
        "dht_addr": str(host.dht_address),
        "quic_addr": str(host.quic_address),
        "agents": [*sorted(str(agent) for agent in host.agents)],
        "nat_type": int(nat_type),
        "nat_type_label": nat_type.name.lower(),
        "nat_bind_public": host.sense.bind_public,
        "min_observed_peers": host.sense.min_agreeing,
    }
    trusted = host.sense.trusted(now, ipv6=False) or host.sense.trusted(now, ipv6=True)
    if trusted is not None:
        page["observed_host"] = trusted.host
        if trusted.port:
            page["observed_port"] = trusted.port
    return page


def _connection(connection: AgentConnection) -> dict[str, Json]:
    stats = connection.stats
    return {
        "local": str(connection.local),
        "remote": str(connection.remote),
        "incoming": connection.incoming,
        "path": connection.path,
        "rtt_ms": round(1000 * stats.smoothed_rtt, 2),
        "congestion_window": stats.congestion_window,
        "bytes_sent": stats.bytes_sent,
        "bytes_received": stats.bytes_received,
        "packets_lost": stats.packets_lost,
        "open_streams": stats.open_streams,
    }
