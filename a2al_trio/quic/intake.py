"""Where datagrams enter a connection: as runs or one by one, with what the peer did wrong turned into a close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.errors import FrameDecodeError, QuicTransportError
from a2al_trio.quic.receive import Receiver
from a2al_trio.quic.receive_run import RunReceiver
from a2al_trio.quic.tls import TlsAlert

if TYPE_CHECKING:
    from a2al_trio.quic.ack_frame import AckFrame
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path

__all__ = ["Intake"]


class Intake:
    """Takes the datagrams of one connection from the endpoint."""

    __slots__ = ("_connection", "_kept", "_receiver", "_run_receiver")

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._receiver = Receiver(connection)
        self._run_receiver = RunReceiver(connection, self._receiver.handlers)
        self._kept: tuple[AckFrame, float] | None = None

    @property
    def packets(self) -> int:
        """How many packets were genuine."""
        return self._receiver.packets

    @property
    def undecryptable(self) -> int:
        """How many packets did not open, or came without keys for them."""
        return self._receiver.undecryptable

    def take_run(self, data: memoryview, size: int, path: Path, *, ecn: int, now: float) -> list[bytes]:
        """Take short header packets that are `size` bytes apart in `data`, which is written to.

        Returns those that did not open this way, as they arrived.
        """
        connection = self._connection
        if connection.closed:
            connection.ending.on_datagram()
            return []
        connection.bytes_received += len(data)
        path.bytes_received += len(data)
        one_rtt = connection.one_rtt
        if one_rtt is None or not connection.ready:
            return [bytes(data[at : at + size]) for at in range(0, len(data), size)]
        try:
            result = self._run_receiver.receive(
                data, size, one_rtt.receive, phase=one_rtt.phase, path=path, ecn=ecn, now=now
            )
        except (QuicTransportError, FrameDecodeError, TlsAlert) as error:
            connection.on_violation(error, now)
            return []
        if result.opened:
            self._receiver.packets += result.opened
            connection.timers.on_received(now)
            connection.key_updates.on_opened(one_rtt.receive, result.lowest, now)
            if path is not connection.paths.current:
                connection.migration.on_packet(path, result.destination_cid, moved=not result.only_probing)
        return result.failed

    def put_off(self, frame: AckFrame, now: float) -> None:
        """Keep an ACK that came with messages, and with nothing else, until `catch_up`.

        Their answer does not depend on it, and need not wait until it has been applied.
        """
        self._connection.put_off()
        self._kept = frame, now

    def catch_up(self) -> None:
        """Apply the ACK that was put off, as of the instant it arrived."""
        connection, kept = self._connection, self._kept
        self._kept = None
        if kept is None or connection.closed:
            return
        frame, arrived_at = kept
        try:
            self._receiver.handlers.apply_ack(frame, connection.application, arrived_at)
        except QuicTransportError as error:
            connection.on_violation(error, arrived_at)

    def take_datagram(
        self, data: bytes | memoryview, path: Path, ecn: int, now: float, *, counted: bool = False
    ) -> bool:
        """Take one datagram; returns whether it was genuine. `counted` if `take_run` has seen it before."""
        connection, receiver = self._connection, self._receiver
        if connection.closed:
            connection.ending.on_datagram()
            return False
        if not counted:
            connection.bytes_received += len(data)
            path.bytes_received += len(data)
        try:
            if data[0] & 0x80:
                genuine = receiver.receive_datagram(data, now=now, path=path, ecn=ecn)
            else:
                genuine = receiver.receive_short(bytes(data), now, path, ecn)
            if receiver.stash and genuine and not connection.closed:
                receiver.replay_stash(now)
        except (QuicTransportError, FrameDecodeError, TlsAlert) as error:
            connection.on_violation(error, now)
            return True
        if genuine:
            connection.timers.on_received(now)
        return genuine
