"""Packet protection against the vectors of RFC 9001 Appendix A and RFC 9369 Appendix A, and key update rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.packet_crypto import (
    SAMPLE_SIZE,
    TAG_SIZE,
    VERSION_1,
    VERSION_2,
    InvalidTag,
    OneRttKeys,
    PacketKeys,
    initial_keys,
    packet_keys,
    retry_integrity_tag,
)
from a2al_trio.quic.tls.suites import CipherSuite

CLIENT_CID = bytes.fromhex("8394c8f03e515708")
SERVER_PAYLOAD = bytes.fromhex(
    "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200"
    "130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00"
    "020304"
)
CLIENT_HELLO_FRAME = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113"
    "02010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504"
    "616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43"
    "e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100390032"
    "0408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ff"
    "ff"
)
SERVER_PACKETS = {
    VERSION_1: (
        "c1000000010008f067a5502a4262b50040750001",
        "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb3"
        "8cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84"
        "022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee",
    ),
    VERSION_2: (
        "d16b3343cf0008f067a5502a4262b50040750001",
        "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf872630"
        "17915358230035f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2"
        "c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e140",
    ),
}
CHACHA_SECRET = bytes.fromhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b")


def protect(keys: PacketKeys, packet_number: int, header: bytes, payload: bytes) -> bytes:
    """Seal and mask one packet the way RFC 9001 §5.4.1 writes it down, one step at a time."""
    number_size = (header[0] & 3) + 1
    sealed = keys.seal(packet_number, header, payload)
    mask = keys.masks(sealed[4 - number_size :][:SAMPLE_SIZE])
    packet = bytearray(header + sealed)
    packet[0] ^= mask[0] & (0x0F if header[0] & 0x80 else 0x1F)
    for index in range(number_size):
        packet[len(header) - number_size + index] ^= mask[1 + index]
    return bytes(packet)


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_server_initial_packet_of_the_rfc(version: int) -> None:
    header, expected = SERVER_PACKETS[version]
    keys = initial_keys(CLIENT_CID, version).server
    packet = protect(keys, 1, bytes.fromhex(header), SERVER_PAYLOAD)
    assert packet.hex() == expected
    assert keys.open(1, bytes.fromhex(header), packet[20:]) == SERVER_PAYLOAD


def test_client_initial_packet_of_rfc_9001() -> None:
    keys = initial_keys(CLIENT_CID).client
    header = bytes.fromhex("c300000001088394c8f03e5157080000449e00000002")
    packet = protect(keys, 2, header, CLIENT_HELLO_FRAME.ljust(1162, b"\0"))
    assert len(packet) == 1200
    assert packet[:38].hex() == "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b"[:76]
    assert packet[-TAG_SIZE:].hex() == "e221af44860018ab0856972e194cd934"


@pytest.mark.parametrize(
    ("version", "retry"),
    [
        (VERSION_1, "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba"),
        (VERSION_2, "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6"),
    ],
)
def test_retry_integrity_tag_of_the_rfc(version: int, retry: str) -> None:
    packet = bytes.fromhex(retry)
    assert retry_integrity_tag(CLIENT_CID, packet[:-TAG_SIZE], version) == packet[-TAG_SIZE:]


@pytest.mark.parametrize(
    ("version", "iv", "expected"),
    [
        (VERSION_1, "e0459b3474bdd0e44a41c144", "4cfe4189655e5cd55c41f69080575d7999c25a5bfb"),
        (VERSION_2, "a6b5bc6ab7dafce30ffff5dd", "5558b1c60ae7b6b932bc27d786f4bc2bb20f2162ba"),
    ],
)
def test_chacha20_short_header_packet_of_the_rfc(version: int, iv: str, expected: str) -> None:
    keys = packet_keys(CipherSuite.CHACHA20_POLY1305_SHA256, CHACHA_SECRET, version)
    assert keys.iv == int(iv, 16)
    assert protect(keys, 654360564, bytes.fromhex("4200bff4"), b"\x01").hex() == expected


def test_key_update_secret_of_rfc_9001() -> None:
    keys = packet_keys(CipherSuite.CHACHA20_POLY1305_SHA256, CHACHA_SECRET).next()
    expected = bytes.fromhex("1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9")
    reference = packet_keys(CipherSuite.CHACHA20_POLY1305_SHA256, expected)
    assert keys.iv == reference.iv
    assert keys.seal(7, b"header", b"payload") == reference.seal(7, b"header", b"payload")


@pytest.mark.parametrize("suite", list(CipherSuite))
def test_masks_of_a_batch_are_the_masks_of_each(suite: CipherSuite) -> None:
    keys = packet_keys(suite, bytes(range(suite.hash_size)))
    samples = bytes(range(96))
    single = b"".join(keys.masks(samples[i : i + SAMPLE_SIZE]) for i in range(0, 96, SAMPLE_SIZE))
    assert keys.masks(samples) == single
    assert keys.masks(memoryview(samples)) == single


@pytest.mark.parametrize("suite", list(CipherSuite))
def test_sealing_works_in_place(suite: CipherSuite) -> None:
    keys = packet_keys(suite, bytes(suite.hash_size))
    nonce = (keys.iv ^ 5).to_bytes(12, "big")
    packet = bytearray(b"HEAD" + b"payload" + bytes(TAG_SIZE))
    view = memoryview(packet)
    keys.encrypt_into(nonce, view[4:11], view[:4], view[4:])
    assert bytes(view[4:]) == keys.seal(5, b"HEAD", b"payload")
    assert keys.decrypt(nonce, view[4:], view[:4]) == b"payload"


@given(st.binary(max_size=64), st.integers(0, (1 << 62) - 1))
def test_any_bytes_open_or_are_refused(data: bytes, packet_number: int) -> None:
    keys = initial_keys(CLIENT_CID).client
    with pytest.raises(InvalidTag):
        keys.open(packet_number, b"header", data)


class TestKeyUpdate:
    """RFC 9001 §6 between two ends that share secrets."""

    def pair(self) -> tuple[OneRttKeys, OneRttKeys]:
        suite = CipherSuite.AES_128_GCM_SHA256
        a, b = bytes(32), bytes([1]) * 32
        return (
            OneRttKeys(packet_keys(suite, a), packet_keys(suite, b)),
            OneRttKeys(packet_keys(suite, b), packet_keys(suite, a)),
        )

    def carry(self, sender: OneRttKeys, receiver: OneRttKeys, number: int) -> bool:
        sealed = sender.send.seal(number, b"", b"x")
        keys = receiver.for_packet(sender.phase, number)
        assert keys is not None
        assert keys.open(number, b"", sealed) == b"x"
        return receiver.opened(keys, number, 100)

    def test_the_peer_follows_an_update_and_both_go_on(self) -> None:
        a, b = self.pair()
        assert not a.may_update(None)
        self.carry(a, b, 0)
        self.carry(b, a, 0)
        assert a.may_update(0)
        a.update(1)
        assert not a.may_update(0), "no packet of the new phase is acknowledged yet"
        assert self.carry(a, b, 1), "the peer takes the update over"
        assert a.phase == b.phase == 1
        assert not self.carry(b, a, 1)
        assert not a.may_update(1), "old keys are still kept"
        a.discard_previous()
        assert a.may_update(1)
        a.update(2)
        b.discard_previous()
        assert self.carry(a, b, 2)
        assert not self.carry(b, a, 2)
        assert a.phase == b.phase == 0

    def test_packets_of_the_old_phase_open_until_its_keys_are_discarded(self) -> None:
        a, b = self.pair()
        self.carry(a, b, 0)
        self.carry(b, a, 0)
        late = a.send.seal(1, b"", b"late")
        a.update(2)
        self.carry(a, b, 2)
        keys = b.for_packet(0, 1)
        assert keys is not None
        assert keys.open(1, b"", late) == b"late"
        assert not b.opened(keys, 1, 100)
        b.discard_previous()
        assert b.for_packet(0, 1) is None

    def test_the_peer_may_not_have_seen_our_update(self) -> None:
        a, b = self.pair()
        self.carry(a, b, 0)
        self.carry(b, a, 0)
        a.update(1)
        assert not self.carry(b, a, 5), "a higher number with the old phase is the old phase"
        assert self.carry(a, b, 1)
        assert not self.carry(b, a, 6)

    def test_a_forged_key_phase_changes_nothing(self) -> None:
        a, b = self.pair()
        self.carry(a, b, 0)
        keys = b.for_packet(1, 1)
        assert keys is not None
        with pytest.raises(InvalidTag):
            keys.open(1, b"", bytes(40))
        assert b.phase == 0
        assert not self.carry(a, b, 1)
