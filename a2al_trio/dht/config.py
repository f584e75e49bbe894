"""Every number the DHT node can be tuned by, with the defaults of spec 03 §21 where it has one."""

from __future__ import annotations

import attrs

__all__ = ["DhtConfig", "Diversity", "RequestBudget", "StoreLimits"]


@attrs.frozen(kw_only=True)
class Diversity:
    """How much of the routing table one network may hold (spec 03 §20.8).

    A network is an IPv4 /24 or an IPv6 /56. `exempt` lists networks without a limit: loopback by default, since
    no outsider can have such an address; add private test nets here.
    """

    per_bucket: int = 2
    per_table: int = 10
    per_lookup: int = 4
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")


@attrs.frozen(kw_only=True)
class StoreLimits:
    """What the record store keeps (spec 03 §11.2), and for how long.

    The caps per key are the reference's. `max_bytes` bounds the memory of all records held; `per_source_bytes` what
    came from one network, `per_publisher_bytes` what one publisher has. `retention_*` cap how long a record is
    kept whatever its ttl says, in seconds. `clock_tolerance` is how far in the future a timestamp may lie (spec 08 §3).
    """

    max_keys: int = 100_000
    max_bytes: int = 64 * 1024 * 1024
    per_source_bytes: int = 4 * 1024 * 1024
    per_publisher_bytes: int = 256 * 1024
    sovereign_per_key: int = 8
    topic_per_key: int = 100
    mailbox_per_key: int = 50
    mailbox_per_sender: int = 4
    retention_sovereign: int = 24 * 3600
    retention_topic: int = 2 * 3600
    retention_mailbox: int = 3600
    clock_tolerance: int = 60
    bind_content_to_key: bool = True


@attrs.frozen(kw_only=True)
class RequestBudget:
    """How much work one network may cause us: requests per second on average, and how many at once.

    `unproven_bytes` is what may be sent per second to sources whose address no round trip has proven, beyond
    three times what they sent; the wire forces that for a single record larger than that.
    """

    rate: float = 100.0
    burst: float = 300.0
    queued_per_source: int = 64
    queued: int = 2048
    unproven_bytes: float = 4096.0
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")


@attrs.frozen(kw_only=True)
class DhtConfig:
    """Settings of one DHT node; times are in seconds."""

    bucket_size: int = 16
    replacements: int = 5
    alpha: int = 5
    lookup_budget: int = 64
    lookup_limit: float = 15.0
    collect_window: float = 0.1
    collect_limit: float = 0.3
    """A value search listens for newer records after its first find: at least for `collect_window`, and until all who
    were asked have had that long, or longer if they are known to be far; but not longer than `collect_limit`."""
    rpc_timeout: float = 2.0
    rpc_patience: float = 5.0
    """How long a late answer is still taken; the reference's first answer comes after 3 s (spec 03 §19.14)."""
    probe_timeout: float = 3.0
    replicas: int = 8
    replica_limit: int = 16
    store_concurrency: int = 4
    maintenance_interval: float = 15.0
    fresh_for: float = 1800.0
    replacement_lifetime: float = 7200.0
    holder_interval: float = 1200.0
    """How long a replica goes unrefreshed before its holder renews it in the publisher's stead."""
    max_peers_remembered: int = 1024
    diversity: Diversity = Diversity()
    store: StoreLimits = StoreLimits()
    requests: RequestBudget = RequestBudget()
    passive: bool = False
    private_contacts: bool = False
    """Accept contacts at private addresses from anybody, not only from peers of the same range."""
