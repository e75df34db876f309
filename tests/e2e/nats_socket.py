# SPDX-License-Identifier: Apache-2.0
"""A NATS client as an operator's tool would be, in a few lines: one socket, the text protocol, a
user's key. Nothing of docket is in it."""

import base64
import ctypes
import json
import os
import socket
import time
import uuid
from collections import namedtuple
from urllib.parse import urlsplit

SODIUM = ctypes.CDLL("libsodium.so.23")
USER_PREFIX = 20 << 3
READ_BYTES = 65536
ASK_S = 10  # for an answer that must come, on a machine that has other things to do

Message = namedtuple("Message", "subject reply headers data")


def crc16(data):
    """XMODEM, as nkeys have it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def sign(seed_text, data):
    """(public key, signature) as texts; a seed's text begins with two bytes of prefixes."""
    seed = base64.b32decode(seed_text + "=" * (-len(seed_text) % 8))[2:34]
    public, secret = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
    signature = ctypes.create_string_buffer(64)
    SODIUM.crypto_sign_seed_keypair(public, secret, seed)
    SODIUM.crypto_sign_detached(signature, None, data, ctypes.c_ulonglong(len(data)), secret)
    body = bytes([USER_PREFIX]) + public.raw
    return (
        base64.b32encode(body + crc16(body).to_bytes(2, "little")).decode().rstrip("="),
        base64.urlsafe_b64encode(signature.raw).decode().rstrip("="),
    )


class Nats:
    def __init__(self, fleet, role="ops"):
        where = urlsplit(fleet.nats)
        self.socket = socket.create_connection((where.hostname, where.port), 5)
        self.buffer, self.count = b"", 0
        info = json.loads(self.line().split(b" ", 1)[1])
        with open(os.path.join(fleet.keys, f"nats-{role}.nk"), encoding="ascii") as stream:
            nkey, signature = sign(stream.read().strip(), info["nonce"].encode())
        options = {"nkey": nkey, "sig": signature, "headers": True, "no_responders": True}
        options |= {"verbose": False, "pedantic": False, "protocol": 1, "name": "test"}
        self.send(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        assert self.line() == b"PONG"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self, until):
        """Waits for more bytes; False at that time."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            more = self.socket.recv(READ_BYTES)
        except (TimeoutError, socket.timeout):
            return False
        assert more, "the server closed the connection"
        self.buffer += more
        return True

    def line(self, bound_s=5):
        until = time.monotonic() + bound_s
        while b"\r\n" not in self.buffer:
            if not self.read(until):
                return None
        text, self.buffer = self.buffer.split(b"\r\n", 1)
        return text

    def subscribe(self, subject):
        self.count += 1
        self.send(f"SUB {subject} {self.count}\r\nPING\r\n".encode())
        return self

    def publish(self, subject, data=b"", reply=""):
        head = f"PUB {subject} {reply} {len(data)}\r\n".replace("  ", " ")
        self.send(head.encode() + data + b"\r\n")

    def body(self, size):
        until = time.monotonic() + 5
        while len(self.buffer) < size + 2:
            assert self.read(until)
        data, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
        return data

    def next(self, bound_s):
        """The next message; None if there is none in time."""
        until = time.monotonic() + bound_s
        while True:
            line = self.line(max(0.001, until - time.monotonic()))
            if line is None:
                return None
            word, *rest = line.decode().split()
            if word == "PING":
                self.send(b"PONG\r\n")
            elif word in ("MSG", "HMSG"):
                data, headers = self.body(int(rest[-1])), {}
                if word == "HMSG":
                    size = int(rest.pop(-2))
                    lines = data[:size].decode().split("\r\n")[1:]
                    headers = dict(one.split(": ", 1) for one in lines if ": " in one)
                    data = data[size:]
                return Message(rest[0], rest[2] if len(rest) > 3 else None, headers, data)
            else:
                assert word in ("PONG", "INFO"), line

    def messages(self, bound_s):
        """All that come in that time."""
        until = time.monotonic() + bound_s
        while one := self.next(until - time.monotonic()):
            yield one

    def ask(self, subject, params=None, bound_s=None, answers=None, more_s=0.0):
        """So many answers; or, without a number, all that come in time. `more_s`: and what else
        comes for so long after them."""
        if bound_s is None:
            bound_s = ASK_S if answers else 1.0
        inbox = f"_INBOX.{uuid.uuid4().hex}"
        self.subscribe(inbox)
        data = params if isinstance(params, bytes) else json.dumps(params).encode()
        self.publish(subject, b"" if params is None else data, inbox)
        got = []
        for one in self.messages(bound_s):
            if one.subject == inbox:
                got.append(one)
                if len(got) == answers:
                    break
        return got + [one for one in self.messages(more_s) if one.subject == inbox]
