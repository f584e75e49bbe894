"""HMAC, HKDF and the key schedule against the standard library and the trace of RFC 8448 §3."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.tls.hkdf import HashName, HmacKey, expand_label, hkdf_extract
from a2al_trio.quic.tls.key_schedule import KeySchedule, Transcript
from a2al_trio.quic.tls.suites import CipherSuite

hash_names: st.SearchStrategy[HashName] = st.sampled_from(["sha256", "sha384"])


@given(hash_names, st.binary(max_size=64), st.lists(st.binary(max_size=300), max_size=3))
def test_a_kept_key_gives_the_hmac_of_each_message(name: HashName, key: bytes, messages: list[bytes]) -> None:
    kept = HmacKey(name, key)
    for message in messages:
        assert kept.digest(message) == hmac.digest(key, message, name)


def test_a_key_longer_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="block"):
        HmacKey("sha256", bytes(65))


def test_extract_of_rfc_5869() -> None:
    salt, input_key = bytes(range(13)), b"\x0b" * 22
    expected = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert hkdf_extract("sha256", salt, input_key).hex() == expected


def test_expand_label_of_rfc_8448() -> None:
    secret = bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    assert expand_label("sha256", secret, "key", b"", 16).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert expand_label("sha256", secret, "iv", b"", 12).hex() == "5d313eb2671276ee13000b30"


def test_secrets_of_the_simple_handshake_of_rfc_8448() -> None:
    schedule = KeySchedule(
        CipherSuite.AES_128_GCM_SHA256,
        bytes.fromhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"),
        bytes.fromhex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8"),
        None,
    )
    client = "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
    server = "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
    assert (schedule.client_handshake.hex(), schedule.server_handshake.hex()) == (client, server)
    after_finished = bytes.fromhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
    client_secret, server_secret = schedule.application_secrets(after_finished)
    assert client_secret.hex() == "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
    assert server_secret.hex() == "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"


def test_a_finished_is_right_for_one_side_and_one_transcript_only() -> None:
    schedule = KeySchedule(CipherSuite.AES_256_GCM_SHA384, bytes(32), bytes(48), None)
    proof = schedule.finished(by_server=True, transcript_hash=b"a" * 48)
    assert schedule.check_finished(proof, by_server=True, transcript_hash=b"a" * 48)
    assert not schedule.check_finished(proof, by_server=False, transcript_hash=b"a" * 48)
    assert not schedule.check_finished(proof, by_server=True, transcript_hash=b"b" * 48)


def test_looking_ahead_leaves_the_transcript_alone() -> None:
    transcript = Transcript("sha256")
    transcript.add(b"one")
    before = transcript.digest()
    ahead = transcript.digest_with(b"two")
    assert transcript.digest() == before
    transcript.add(b"two")
    assert transcript.digest() == ahead
