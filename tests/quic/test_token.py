"""Address validation tokens: whom they are good for, how long, and any other bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.token import NEW_TOKEN_LIFETIME, RETRY_LIFETIME, NewToken, RetryToken, TokenKeys
from tests.quic.tls_support import drbg

HOME = SocketAddress("192.0.2.1", 4433)
OTHER_PORT = SocketAddress("192.0.2.1", 4434)
OTHER_HOST = SocketAddress("192.0.2.2", 4433)
IPV6 = SocketAddress("2001:db8::1", 4433)
LINK_LOCAL = SocketAddress("fe80::1%eth0", 4433)

cids = st.binary(max_size=20)


@pytest.fixture
def keys() -> TokenKeys:
    return TokenKeys(drbg("tokens"))


@given(cids, cids, st.sampled_from([HOME, IPV6, LINK_LOCAL]))
def test_a_retry_token_brings_both_ids_back(original: bytes, source: bytes, address: SocketAddress) -> None:
    keys, content = TokenKeys(drbg("tokens")), RetryToken(original, source)
    token = keys.seal_retry(address, VERSION_1, content, 5.0)
    assert keys.open(token, address, VERSION_1, 6.0) == content


@pytest.mark.parametrize("address", [OTHER_PORT, OTHER_HOST, IPV6])
def test_a_retry_token_is_good_for_one_address_and_port(keys: TokenKeys, address: SocketAddress) -> None:
    token = keys.seal_retry(HOME, VERSION_1, RetryToken(b"o", b"s"), 5.0)
    assert keys.open(token, address, VERSION_1, 5.0) is None
    assert keys.looks_like_retry(token)


def test_a_new_token_is_good_for_the_host_from_any_port(keys: TokenKeys) -> None:
    token = keys.seal_new_token(HOME, VERSION_1, 5.0)
    assert keys.open(token, OTHER_PORT, VERSION_1, 6.0) == NewToken()
    assert keys.open(token, OTHER_HOST, VERSION_1, 6.0) is None
    assert not keys.looks_like_retry(token)


def test_tokens_expire(keys: TokenKeys) -> None:
    retry = keys.seal_retry(HOME, VERSION_1, RetryToken(b"o", b"s"), 0.0)
    new = keys.seal_new_token(HOME, VERSION_1, 0.0)
    assert keys.open(retry, HOME, VERSION_1, RETRY_LIFETIME - 0.1) is not None
    assert keys.open(retry, HOME, VERSION_1, RETRY_LIFETIME) is None
    assert keys.open(new, HOME, VERSION_1, NEW_TOKEN_LIFETIME - 0.1) is not None
    assert keys.open(new, HOME, VERSION_1, NEW_TOKEN_LIFETIME) is None
    assert keys.open(new, HOME, VERSION_1, 5 * NEW_TOKEN_LIFETIME) is None


def test_a_token_outlives_one_renewal_of_the_key(keys: TokenKeys) -> None:
    keys.seal_new_token(HOME, VERSION_1, 0.0)
    token = keys.seal_new_token(HOME, VERSION_1, NEW_TOKEN_LIFETIME - 1)
    assert keys.open(token, HOME, VERSION_1, NEW_TOKEN_LIFETIME + 1) == NewToken()


def test_tokens_are_good_for_one_version_of_quic(keys: TokenKeys) -> None:
    for token in (
        keys.seal_retry(HOME, VERSION_1, RetryToken(b"o", b"s"), 5.0),
        keys.seal_new_token(HOME, VERSION_1, 5.0),
    ):
        assert keys.open(token, HOME, VERSION_2, 5.0) is None


def test_the_kind_cannot_be_changed(keys: TokenKeys) -> None:
    retry = keys.seal_retry(HOME, VERSION_1, RetryToken(b"o", b"s"), 5.0)
    new = keys.seal_new_token(HOME, VERSION_1, 5.0)
    assert keys.open(new[:1] + retry[1:], HOME, VERSION_1, 5.0) is None
    assert keys.open(retry[:1] + new[1:], HOME, VERSION_1, 5.0) is None


def test_tokens_of_another_server_are_none_of_ours(keys: TokenKeys) -> None:
    token = TokenKeys(drbg("another")).seal_new_token(HOME, VERSION_1, 5.0)
    assert keys.open(token, HOME, VERSION_1, 5.0) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: b"R" + data), st.integers(0, 79))
def test_any_bytes_validate_nothing(data: bytes, position: int) -> None:
    keys = TokenKeys(drbg("tokens"))
    assert keys.open(data, HOME, VERSION_1, 5.0) is None
    token = bytearray(keys.seal_retry(HOME, VERSION_1, RetryToken(b"original", b"source"), 5.0))
    token[position % len(token)] ^= 0x20
    assert keys.open(bytes(token), HOME, VERSION_1, 5.0) is None
