"""Peers that answer nothing: `QuicConfig.silence_limit` ends the connection, and nothing but silence makes it do so."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from a2al_trio.errors import CloseCause, ConfigurationError
from a2al_trio.quic.config import QuicConfig

from .pair import Link, Pair, Side

LIMIT = 20.0
CONFIG = QuicConfig(silence_limit=LIMIT, idle_timeout=300)
GONE = Link(loss=1.0)


def ask(pair: Pair) -> None:
    """The client says something that is to be acknowledged."""
    pair.client.connection.ping()


def test_a_peer_that_does_not_answer_is_named_after_the_limit() -> None:
    pair = Pair(config=CONFIG)
    client, _ = pair.handshake()
    pair.run(seconds=100)
    began, sent = pair.now, pair.client.datagrams
    pair.link = GONE
    ask(pair)
    pair.run(lambda: client.closed)
    assert client.close_reason == (CloseCause.PATH, 0, "the peer has not answered for 20 s")
    assert pair.now - began == pytest.approx(LIMIT, abs=0.01)
    assert pair.client.datagrams - sent < 40
    assert pair.client.ended is not None


def test_silence_is_none_while_nothing_is_asked() -> None:
    pair = Pair(config=CONFIG)
    client, server = pair.handshake()
    pair.run(seconds=5)
    pair.link = GONE
    pair.run(seconds=290)
    assert not client.closed
    assert not server.closed


def test_with_keep_alive_both_sides_notice_soon_whoever_says_nothing() -> None:
    pair = Pair(config=QuicConfig(silence_limit=LIMIT, keep_alive=15, idle_timeout=300))
    client, server = pair.handshake()
    pair.run(seconds=100)
    pair.link = GONE
    began = pair.now
    pair.run(lambda: client.closed and server.closed)
    assert pair.now - began <= 35.1
    assert server.close_reason is not None
    assert server.close_reason[0] is CloseCause.PATH


def test_a_full_congestion_window_does_not_hide_the_silence() -> None:
    pair = Pair(config=CONFIG)
    client, _ = pair.handshake()
    pair.link = GONE
    began = pair.now
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(400_000))
    pair.run(lambda: client.closed)
    assert pair.now - began == pytest.approx(LIMIT, abs=0.01)


def test_a_peer_that_still_hears_us_is_told() -> None:
    pair = Pair(config=CONFIG)
    client, server = pair.handshake()

    def only_there(side: Side, data: bytes) -> bytes | None:
        return data if side is pair.client else None

    pair.filter = only_there
    ask(pair)
    pair.run(lambda: server.closed)
    assert client.closed
    assert server.close_reason == (CloseCause.PEER_TRANSPORT, 0, "the peer has not answered for 20 s")


def test_a_program_that_was_suspended_asks_again_before_it_gives_up() -> None:
    """Its time went on while nobody read what had arrived."""
    pair = Pair(config=CONFIG)
    client, _ = pair.handshake()
    link, pair.link = pair.link, GONE
    ask(pair)
    pair.settle()
    pair.now += 100
    pair.link = link
    pair.run(seconds=60)
    assert not client.closed


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 100), st.floats(0, LIMIT * 7 / 8 - 0.1), st.floats(0.0005, 0.2))
@example(0, 15, 0.01)
def test_outages_shorter_than_seven_eighths_of_the_limit_are_survived(idle: float, outage: float, delay: float) -> None:
    pair = Pair(config=QuicConfig(silence_limit=LIMIT, keep_alive=15, idle_timeout=300), link=Link(delay=delay))
    client, server = pair.handshake()
    pair.run(seconds=idle)
    link, pair.link = pair.link, GONE
    ask(pair)
    pair.run(seconds=outage)
    pair.link = link
    pair.run(seconds=60)
    assert not client.closed
    assert not server.closed


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0.001, 4), st.sampled_from([1.0, 5.0, LIMIT]))
@example(1, 4, 1.0)
def test_it_never_ends_a_connection_whose_answers_come(seed: int, delay: float, limit: float) -> None:
    """On slow links and lossy ones, however short the limit."""
    config = QuicConfig(silence_limit=limit, keep_alive=1, idle_timeout=300)
    pair = Pair(config=config, link=Link(delay=delay), seed=seed)
    client, server = pair.handshake()
    pair.link = Link(delay=delay, loss=0.05, reorder=0.05)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(20_000), fin=True)
    pair.run(seconds=120)
    assert not client.closed, client.close_reason
    assert not server.closed, server.close_reason


@pytest.mark.parametrize("limit", [0, -1, 0.5, float("nan")])
def test_a_limit_that_cannot_be_is_refused(limit: float) -> None:
    with pytest.raises(ConfigurationError, match="silence_limit must be at least 1 second"):
        QuicConfig(silence_limit=limit)
