"""What a node tells about itself: statistics, and the data of the `/debug` pages (spec 03 §16)."""

from __future__ import annotations

import attrs

from a2al_trio.dht.core import DhtCore
from a2al_trio.errors import ConfigurationError

__all__ = ["Json", "Statistics", "debug_data", "duration_text", "statistics"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@attrs.frozen
class Statistics:
    """Counts since the start, and the present size of things."""

    received_verified: int
    received_malformed: int
    received_forged: int
    received_unexpected: int
    refused_over_budget: int
    requests_answered: int
    sent: int
    send_queue_dropped: int
    calls_completed: int
    calls_failed: int
    calls_foreign: int
    searches: int
    searches_shared: int
    searches_exhausted: int
    contacts: int
    records: int
    record_bytes: int
    published: int
    estimated_network_size: int
    estimate_confidence: float
    unique_nodes_since_start: int


def statistics(core: DhtCore) -> Statistics:
    """The node's statistics now."""
    estimate = core.table.estimate_size(core.timers.now - core.env.config.fresh_for)
    usage = core.store.usage
    return Statistics(
        received_verified=core.counters.verified,
        received_malformed=core.counters.malformed,
        received_forged=core.counters.forged,
        received_unexpected=core.counters.unexpected,
        refused_over_budget=core.limiter.refused,
        requests_answered=core.handlers.answered,
        sent=core.outbox.sent,
        send_queue_dropped=core.outbox.dropped,
        calls_completed=core.rpc.counters.completed,
        calls_failed=core.rpc.counters.failed,
        calls_foreign=core.rpc.counters.foreign,
        searches=core.searches.counters.started,
        searches_shared=core.searches.counters.shared,
        searches_exhausted=core.searches.counters.exhausted,
        contacts=len(core.table),
        records=usage.records,
        record_bytes=usage.encoded_bytes,
        published=len(core.replication),
        estimated_network_size=estimate.nodes,
        estimate_confidence=estimate.confidence,
        unique_nodes_since_start=core.seen.met_since_start,
    )


def debug_data(core: DhtCore, section: str, local_address: str) -> Json:
    """The data of one page: `identity`, `routing`, `store` or `stats`. ConfigurationError for another name."""
    match section:
        case "identity":
            return {
                "address": str(core.env.identity.address),
                "node_id_hex": core.env.identity.node_id.hex(),
                "local_addr": local_address,
            }
        case "routing":
            return _routing(core)
        case "store":
            return _store(core)
        case "stats":
            return _stats(core)
        case _:
            raise ConfigurationError(f"no debug section {section!r}: use identity, routing, store or stats")


def _routing(core: DhtCore) -> Json:
    peers: list[Json] = []
    for index, bucket in core.table.buckets():
        for entry in bucket.main:
            contact = entry.contact
            peers.append(
                {
                    "bucket": index,
                    "xor_distance_to_self_hex": f"{contact.key ^ core.env.own:064x}",
                    "address_hex": contact.node_address.hex(),
                    "node_id_hex": contact.node_id.hex(),
                    "ip": contact.address.host,
                    "port": contact.address.port,
                    "verified_ago": duration_text(core.timers.now - entry.verified_at),
                }
            )
    return {
        "self_node_id_hex": core.env.identity.node_id.hex(),
        "total_peers": len(core.table),
        "peers": peers or None,
    }


def _store(core: DhtCore) -> Json:
    now = core.env.unix_seconds()
    records: list[Json] = [
        {
            "key_node_id_hex": held.key.hex(),
            "address_hex": held.record.address.hex(),
            "rec_type": held.record.record_type,
            "seq": held.record.sequence,
            "timestamp": held.record.timestamp,
            "ttl_seconds": held.record.ttl,
            "payload_cbor_len": len(held.record.payload),
        }
        for held in core.store
        if held.until >= now
    ]
    return records or None


def _stats(core: DhtCore) -> Json:
    now, numbers = core.env.unix_seconds(), statistics(core)
    reach_1h = core.seen.reach(now, 3600)
    page: dict[str, Json] = {
        "rx_packets_verified": numbers.received_verified,
        "tx_packets": numbers.sent,
        "rpc_completed": numbers.calls_completed,
        "total_peers": numbers.contacts,
        "reach_1h": reach_1h,
        "reach_24h": core.seen.reach(now, 24 * 3600),
        "reach_7d": core.seen.reach(now, 7 * 24 * 3600),
        "estimated_network_size": numbers.estimated_network_size,
        "unique_nodes_since_start": numbers.unique_nodes_since_start,
    }
    if numbers.estimate_confidence:
        page["estimate_confidence"] = numbers.estimate_confidence
    if reach_1h:
        page["verified_peers_1h"] = reach_1h
    return page


def duration_text(seconds: float) -> str:
    """Whole seconds as `1h2m3s`, `1m30s` or `5s`."""
    total = max(0, int(seconds))
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
