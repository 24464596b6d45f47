"""Frames of RFC 6455, as far as a client needs them that is much cheaper than the servers it measures."""

from __future__ import annotations

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FINAL = 0x80
MASKED = 0x80
RESERVED = 0x70
NO_MASK = b"\0\0\0\0"


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A frame as a client has to send it. Its mask is zero, which leaves the payload as it is."""
    size = len(payload)
    first = FINAL | opcode
    if size < 126:
        return struct.pack("!BB", first, MASKED | size) + NO_MASK + payload
    if size < 1 << 16:
        return struct.pack("!BBH", first, MASKED | 126, size) + NO_MASK + payload
    return struct.pack("!BBQ", first, MASKED | 127, size) + NO_MASK + payload


class FrameError(Exception):
    """The server sent something that no server may send to this client."""


class FrameReader:
    """Cuts a server's bytes, which come in any pieces, into messages and control frames."""

    __slots__ = ("_opcode", "_parts", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._parts: list[bytes] = []
        self._opcode = CONTINUATION

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The opcodes and payloads that are complete with these bytes. Raises FrameError."""
        if self._rest:
            data = self._rest + data
        found = []
        position, size = 0, len(data)
        while size - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if length >= 126:
                if length > 127:
                    raise FrameError("a server's frame is masked")
                wide = 2 if length == 126 else 8
                if start + wide > size:
                    break
                length = int.from_bytes(data[start : start + wide])
                start += wide
            end = start + length
            if end > size:
                break
            position = end
            if first == FINAL | TEXT and not self._parts:
                found.append((TEXT, data[start:end]))
            else:
                found += self._special(first, data[start:end])
        self._rest = data[position:]
        return found

    def _special(self, first: int, payload: bytes) -> list[tuple[int, bytes]]:
        """What anything but a text in one piece amounts to."""
        opcode = first & 0x0F
        if first & RESERVED:
            raise FrameError("a frame uses an extension that nobody asked for")
        if opcode >= CLOSE:
            return [(opcode, payload)]
        if bool(self._parts) is not (opcode == CONTINUATION):
            raise FrameError("the pieces of a message don't follow each other")
        self._opcode = opcode or self._opcode
        self._parts.append(payload)
        if not first & FINAL:
            return []
        whole, self._parts = b"".join(self._parts), []
        return [(self._opcode, whole)]
