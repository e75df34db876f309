# SPDX-License-Identifier: Apache-2.0
"""Peers that mean no good: memory stays bounded, and everybody else is undisturbed."""

import os
import random
import re
import socket
import time

import pytest
import zmq
from client import PASSWORD, Client, new_id, own_source, pack
from fleet import alive, wait_until

MIB = 1 << 20
BUDGET_S = 5  # of a request that names none


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as stream:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", stream.read(), re.M).group(1)) * 1024


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def watched(fleet, roomy, public):
    """The broker is the same process at the end, hardly larger, and serves; so do the workers.

    It may keep 64 MiB of answers that nobody reads (of all clients together), and little more."""
    before = fleet.pids()
    broker = before["broker-0"]
    size = resident_bytes(broker)
    public.call("ping")
    yield broker
    assert fleet.pids() == before and all(alive(pid) for pid in before.values())
    wait_until(lambda: not public.ask("ping")[0], 5)
    # Behind what it was flooded with, which ends with its budget, one may be told so after as long.
    wait_until(lambda: not roomy.ask("availability")[0], 3 * BUDGET_S)
    assert resident_bytes(broker) < size + 96 * MIB, "the broker keeps more than it may"


class Neighbour:
    """Asks for a ticket now and then, and notes how long that took."""

    def __init__(self, tenant):
        self.tenant, self.slowest_s = tenant, 0.0

    def work(self, rounds=10):
        for _ in range(rounds):
            begin = time.monotonic()
            assert self.tenant.call("availability")["status"] == "ok"
            self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        assert self.slowest_s < 2, f"a neighbour waited {self.slowest_s:.2f} s"


def raw(fleet, port=None):
    connection = socket.create_connection(("127.0.0.1", port or fleet.port), 5)
    connection.settimeout(5)
    return connection


def test_garbage_instead_of_a_handshake(fleet, roomy, watched):
    generator = random.Random(7410)
    neighbour = Neighbour(roomy)
    for port in (fleet.port, fleet.port + 1):
        for size in (1, 9, 10, 11, 64, 1000, 100000):
            with raw(fleet, port) as connection:
                try:
                    connection.sendall(generator.randbytes(size))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass  # closed on us, as it should be
        with raw(fleet, port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    neighbour.work()


GREETING = b"\xff" + b"\x00" * 8 + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + b"\x00" * 32
READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"


def test_handshake_with_a_huge_frame(fleet, roomy, watched):
    """A frame length of 2^62 announces memory that nobody has."""
    neighbour = Neighbour(roomy)
    connections = []
    for _ in range(20):
        connection = raw(fleet)
        connection.sendall(GREETING + READY + b"\x02" + (1 << 62).to_bytes(8, "big") + b"x" * 1000)
        connections.append(connection)
    neighbour.work()
    for connection in connections:
        connection.close()


def test_huge_frame_before_the_handshake(fleet, roomy, watched):
    neighbour = Neighbour(roomy)
    connections = []
    for _ in range(20):
        connection = raw(fleet)
        try:
            connection.sendall(GREETING + b"\x06" + (1 << 31).to_bytes(8, "big"))
            connection.sendall(b"x" * 4 * MIB)
        except OSError:
            pass  # closed on us
        connections.append(connection)
    neighbour.work()
    for connection in connections:
        connection.close()


def test_silent_connections_are_closed(fleet, roomy, watched):
    """They say nothing, so they end; and 300 of them keep nobody out meanwhile."""
    before = open_files(watched)
    connections = [raw(fleet) for _ in range(300)]
    Neighbour(roomy).work()
    with Client(fleet.public) as newcomer:
        assert newcomer.call("ping")["status"] == "ok"
    wait_until(lambda: open_files(watched) <= before + 20, 10)
    for connection in connections:
        connection.close()


def test_random_frames(fleet, roomy, watched):
    """Mutated requests by the thousand: each has one answer, and no process minds."""
    generator = random.Random(119239479)
    seeds = [
        pack([0, 7, "create_ticket", [roomy.with_defaults("create_ticket", {
            "subject": "s", "payload": b"p", "budget_ms": 100})]]),
        pack([0, 7, "list_tickets", [roomy.with_defaults("list_tickets", {"limit": 1})]]),
        pack([0, 7, "create_account", [{"name": "x", "email": "a@b", "password": "x",
                                        "request_id": new_id(), "resolvers": 1}]]),
        pack([0, 7, "set_tenant", [{"client_id": roomy.client_id, "classes": {"a": 5}}]]),
        pack([0, 7, "ping", [{"x": {"y": 1}}]]),
    ]
    with Client(fleet.public, source=own_source()) as client:
        sent = 0
        for _ in range(40):
            frames = []
            for _ in range(100):
                frame = bytearray(generator.choice(seeds))
                for _ in range(generator.randint(1, 6)):
                    kind = generator.randrange(4)
                    at = generator.randrange(len(frame)) if frame else 0
                    if kind == 0 and frame:
                        frame[at] = generator.randrange(256)
                    elif kind == 1:
                        del frame[at : at + generator.randint(1, 8)]
                    elif kind == 2:
                        frame[at:at] = generator.randbytes(generator.randint(1, 8))
                    else:
                        del frame[at:]
                frames.append(bytes(frame))
            client.send_frames(frames)
            sent += len(frames)
            answered = 0
            while answered < 100:
                answers = client.receive(20)
                assert answers, f"{100 - answered} of a hundred frames have no answer"
                answered += len(answers)
        assert client.silent(0.2)
    Neighbour(roomy).work()


def test_messages_without_end(fleet, roomy, watched):
    """One message of 200,000 small frames; a message that never ends; empty messages."""
    neighbour = Neighbour(roomy)
    with Client(fleet.public) as client:
        client.send_frames([b"\xc0"] * 200000)
        neighbour.work()
        answers = client.receive(10)
        assert [answer[2]["code"] for answer in answers] == ["malformed"]
    with raw(fleet) as connection:
        connection.sendall(GREETING + READY)
        block = b"\x01\x01x" * 65536  # frames of one byte, and always one more to come
        try:
            for _ in range(40):
                connection.sendall(block)
        except OSError:
            pass
        neighbour.work()
    with Client(fleet.public) as client:
        for _ in range(1000):
            client.send_frames([])
        rejected = 0
        while rejected < 1000:
            answers = client.receive(10)
            assert answers, f"{rejected} of 1000 empty messages were answered"
            assert {answer[2]["code"] for answer in answers} == {"malformed"}
            rejected += len(answers)


def test_10000_requests_without_reading_an_answer(fleet, roomy, other, watched):
    """Answers of a client that does not read are dropped above 4,096, and nobody waits for it."""
    neighbour = Neighbour(other)  # the tenant that is asked has its hands full
    page = {"token": roomy.token, "client_id": roomy.client_id, "limit": 100}
    for method, params in (("ping", {}), ("list_tickets", page)):
        client = Client(fleet.public, rcvhwm=1, rcvbuf=4096)
        try:
            for at in range(0, 10000, 100):
                client.send_frames(
                    [pack([0, at + 1 + i, method, [params]]) for i in range(100)])
                if at % 1000 == 0:
                    neighbour.work(1)
            neighbour.work()
        finally:
            client.close()
    neighbour.work()


def test_10000_requests_without_reading_by_many_connections(fleet, roomy, other, watched):
    neighbour = Neighbour(other)  # the tenant that is asked has its hands full
    page = {"token": roomy.token, "client_id": roomy.client_id, "limit": 100}
    clients = [Client(fleet.public, rcvhwm=1, rcvbuf=4096) for _ in range(20)]
    for client in clients:
        for at in range(5):
            client.send_frames(
                [pack([0, at * 100 + 1 + i, "list_tickets", [page]]) for i in range(100)])
    neighbour.work()
    for client in clients:
        client.close()
    neighbour.work()


def test_connections_come_and_go(fleet, roomy, watched):
    """Clients that send and leave before the answer: nothing is left of them."""
    before = open_files(watched)
    for _ in range(150):
        with Client(fleet.public) as client:
            client.send("availability", token=roomy.token, client_id=roomy.client_id)
    Neighbour(roomy).work()
    wait_until(lambda: open_files(watched) <= before + 10, 10)


def test_same_routing_id_twice(fleet, roomy, watched):
    """A routing id is an address, never an identity: a newcomer steals no answers."""
    with Client(fleet.public, routing_id=b"victim") as victim:
        victim.call("ping")
        with Client(fleet.public, routing_id=b"victim") as thief:
            thief.send("ping")
            params = {"token": roomy.token, "client_id": roomy.client_id}
            for _ in range(20):
                assert victim.call("availability", **params)["status"] == "ok"
            for answer in thief.receive(0.3):
                assert "node" in answer[3], "an answer of the victim's"


@pytest.mark.parametrize("kind", [zmq.ROUTER, zmq.PUSH, zmq.SUB, zmq.PAIR])
def test_other_socket_types(fleet, roomy, watched, kind):
    other = zmq.Context.instance().socket(kind)
    other.linger = 0
    other.connect(fleet.public)
    if kind == zmq.PUSH:
        other.sndtimeo = 200
        try:
            other.send_multipart([b"", pack([0, 1, "ping", [{}]])])
        except zmq.Again:
            pass  # it never became a connection
    Neighbour(roomy).work()
    other.close()


def test_flood_of_bad_logins_leaves_others_alone(fleet, roomy, watched):
    """Hashing has its own small pool, and the quota is per source."""
    neighbour = Neighbour(roomy)
    clients = [Client(fleet.public, source=own_source()) for _ in range(4)]
    for client in clients:
        client.send_batch(
            [("login", {"client_id": roomy.client_id, "password": f"wrong {at}"})
             for at in range(100)])
    neighbour.work(30)
    for client in clients:
        codes = {error["code"] for error, _ in client.wait(set(client.open), 60).values()}
        assert codes <= {"unauthenticated", "rate_limited", "deadline_exceeded", "unavailable"}
        client.close()
    with Client(fleet.public, source=own_source()) as client:
        assert client.patient("login", client_id=roomy.client_id, password=PASSWORD)


def test_flood_of_bad_tokens_leaves_others_alone(fleet, roomy, watched):
    neighbour = Neighbour(roomy)
    with Client(fleet.public) as client:
        msgids = client.send_batch(
            [("availability", {"token": roomy.token[:-6] + f"{at:06d}",
                               "client_id": roomy.client_id}) for at in range(3000)])
        neighbour.work()
        answers = client.wait(msgids, 60)
    assert {error["code"] for error, _ in answers.values()} <= {"unauthenticated", "overloaded"}
