"""Ed25519: keys, and the same verdict from both libraries."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from a2al_trio.identity import SigningKey, ed25519

KEY = SigningKey(bytes(range(32)))
SMALL_ORDER_KEYS = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def verdicts(public_key: bytes, message: bytes, signature: bytes) -> set[bool]:
    return {
        ed25519.verify(public_key, message, signature),
        ed25519._verify_openssl(public_key, message, signature),
    }


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_both_libraries_sign_and_verify_alike(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    signature = key.sign(message)
    assert signature == ed25519._sign_openssl(seed, message)
    assert verdicts(key.public_key, message, signature) == {True}
    assert verdicts(key.public_key, message + b"x", signature) == {False}


@pytest.mark.parametrize("encoded", SMALL_ORDER_KEYS)
def test_keys_of_small_order_verify_nothing(encoded: str) -> None:
    # S = 0 and R = the identity satisfy the bare equation for every message under such a key, up to its order.
    for r in SMALL_ORDER_KEYS:
        for message in (b"", b"a", b"b", b"c"):
            assert verdicts(bytes.fromhex(encoded), message, bytes.fromhex(r) + bytes(32)) == {False}


def test_a_small_order_r_is_refused_under_an_honest_key() -> None:
    for r in SMALL_ORDER_KEYS:
        assert verdicts(KEY.public_key, b"m", bytes.fromhex(r) + bytes(32)) == {False}


def torsioned(message: bytes, *, in_r: bool, in_key: bool) -> tuple[bytes, bytes, int]:
    """A key and a signature with a point of order 8 added to R or the key, and the challenge modulo 8."""
    scalar = int.from_bytes(hashlib.sha512(KEY.seed).digest()[:32], "little") & (1 << 254) - 8 | 1 << 254
    torsion = bytes.fromhex(SMALL_ORDER_KEYS[5])
    nonce = 12345
    r = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
    r = bindings.crypto_core_ed25519_add(r, torsion) if in_r else r
    public_key = bindings.crypto_core_ed25519_add(KEY.public_key, torsion) if in_key else KEY.public_key
    challenge = int.from_bytes(hashlib.sha512(r + public_key + message).digest(), "little") % GROUP_ORDER
    s = (nonce + challenge * scalar) % GROUP_ORDER
    return public_key, r + s.to_bytes(32, "little"), challenge % 8


def test_verification_is_cofactorless_as_the_references() -> None:
    # A verifier that multiplies by the cofactor takes all of these; records would then divide the network.
    for number in range(40):
        message = b"message %d" % number
        assert verdicts(KEY.public_key, message, torsioned(message, in_r=True, in_key=False)[1]) == {False}
        public_key, signature, challenge = torsioned(message, in_r=False, in_key=True)
        assert verdicts(public_key, message, signature) == {challenge == 0}


def test_a_signature_has_one_encoding() -> None:
    signature = KEY.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert verdicts(KEY.public_key, b"m", signature[:32] + s.to_bytes(32, "little")) == {False}


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_any_bytes_are_judged_without_error(public_key: bytes, message: bytes, signature: bytes) -> None:
    assert not ed25519.verify(public_key, message, signature)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_both_libraries_refuse_alike(public_key: bytes, signature: bytes) -> None:
    assert verdicts(public_key, b"m", signature) == {False}


def test_keys_come_from_seeds_storage_and_entropy() -> None:
    assert SigningKey.generate(io.BytesIO(KEY.seed).read) == KEY
    assert SigningKey.from_private_key(KEY.private_key) == KEY
    assert KEY.seed.hex() not in repr(KEY)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(bytes(size))


def test_a_stored_key_must_be_whole_and_consistent() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        SigningKey.from_private_key(KEY.seed)
    with pytest.raises(ValueError, match="public half"):
        SigningKey.from_private_key(KEY.seed + bytes(32))
