"""What a user of HTTP/3 may set. Every limit bounds what a peer can make us hold or compute."""

from __future__ import annotations

import attrs

__all__ = ["H3Config"]


@attrs.frozen(kw_only=True)
class H3Config:
    """Limits of one HTTP/3 connection; sizes are in bytes."""

    table_capacity: int = 4096
    """QPACK dynamic table in each direction (RFC 9204 §3.2.3); 0 uses none."""

    blocked_streams: int = 16
    """Streams that may wait for entries of the dynamic table (RFC 9204 §2.1.2)."""

    field_section_size: int = 64 * 1024
    """Largest field section we accept, counted as RFC 9114 §4.2.2 does."""

    field_block_size: int = 16 * 1024
    """Largest encoded field section we accept."""

    field_lines: int = 256
    """Most field lines in one section. With `table_capacity` it bounds what a block can expand to before it is read."""

    extended_connect: bool = False
    """Whether a server takes extended CONNECT, which other protocols such as WebSockets come by (RFC 9220)."""

    held_size: int = 1024 * 1024
    """Most that is held of a stream that waits for the dynamic table, and of our own instructions to the peer."""
