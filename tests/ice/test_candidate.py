from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.ice.candidate import Candidate, CandidateType, candidate_priority, foundation_of, parse_candidate
from a2al_trio.ice.errors import CandidateDecodeError
from a2al_trio.ice.pairs import pair_priority
from a2al_trio.net.address import SocketAddress

LINES = [
    "768377705 1 udp 2130706431 10.77.0.1 52519 typ host",
    "1489293557 1 udp 1694498815 203.0.113.9 33149 typ srflx raddr 0.0.0.0 rport 33149",
    "685909418 1 udp 16777215 198.51.100.7 55146 typ relay raddr 0.0.0.0 rport 35438",
    "1234 1 udp 2130706431 2001:db8::7bb7 5000 typ host",
]


@pytest.mark.parametrize("line", LINES)
def test_the_lines_of_the_reference_survive(line: str) -> None:
    assert str(parse_candidate(line)) == line


def test_priorities_and_foundations_of_the_specification() -> None:
    priorities = {kind: candidate_priority(kind) for kind in CandidateType}
    assert list(priorities.values()) == [2130706431, 1694498815, 1862270975, 16777215]
    assert foundation_of(CandidateType.HOST, "10.77.0.1") == "768377705"
    assert foundation_of(CandidateType.SERVER_REFLEXIVE, "203.0.113.9") == "1489293557"
    assert foundation_of(CandidateType.RELAYED, "198.51.100.7") == "685909418"
    assert pair_priority(5, 3) == (3 << 32) + 11
    assert pair_priority(3, 5) == (3 << 32) + 10


def test_lenient_reading() -> None:
    candidate = parse_candidate("a=candidate:1 1 UDP 0 10.0.0.1 9 typ host tcptype active generation 0")
    assert candidate.foundation == "1"
    assert candidate.transport == "udp"
    assert candidate.priority == candidate_priority(CandidateType.HOST)
    assert candidate.related is None
    assert parse_candidate("1 1 tcp 5 fe80::1%eth0 9 x host").address == SocketAddress("fe80::1", 9)
    assert parse_candidate("1 1 udp 5 ::ffff:10.0.0.1 9 typ host").address == SocketAddress("10.0.0.1", 9)
    assert parse_candidate("1 1 udp 5 10.0.0.1 9 typ srflx raddr nonsense rport 1").related is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1 1 udp 5 10.0.0.1 9 typ",
        "1 1 sctp 5 10.0.0.1 9 typ host",
        "1 1 udp 5 host.example 9 typ host",
        "1 1 udp 5 0b1e.local 9 typ host",
        "1 1 udp 5 10.0.0.1 70000 typ host",
        "1 1 udp 4294967296 10.0.0.1 9 typ host",
        "1 1 udp -5 10.0.0.1 9 typ host",
        "1 1 udp 5 10.0.0.1 9 typ relayed",
        "1 70000 udp 5 10.0.0.1 9 typ host",
        "1 1 udp ٣ 10.0.0.1 9 typ host",
    ],
)
def test_what_is_no_candidate(line: str) -> None:
    with pytest.raises(CandidateDecodeError):
        parse_candidate(line)


@given(st.one_of(st.text(max_size=100), st.lists(st.text(max_size=8), min_size=8, max_size=12).map(" ".join)))
def test_any_text_is_a_candidate_or_a_decode_error(text: str) -> None:
    try:
        candidate = parse_candidate(text)
    except CandidateDecodeError:
        return
    assert isinstance(candidate, Candidate)
    assert parse_candidate(str(candidate)).address == candidate.address
