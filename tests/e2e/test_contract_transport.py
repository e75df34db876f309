# SPDX-License-Identifier: Apache-2.0
"""Frames and messages: batches, delimiters, REQ and DEALER, what is not a request, the bounds."""

import os
import signal
import struct
import time

import pytest
import zmq
from client import Client, calm, new_id, pack, refused
from fleet import wait_until


def malformed(client, msgid=0, timeout_s=5):
    """The next message is the one rejection, and nothing follows."""
    answers = client.receive(timeout_s)
    assert len(answers) == 1, answers
    kind, got, error, result = answers[0]
    assert (got, error["code"], result) == (msgid, "malformed", None)
    assert set(error) == {"code", "message"}


# -- batches -------------------------------------------------------------------------------------


def test_batch_of_256_requests_in_one_message(roomy):
    answers = roomy.client.ask_all(
        [("create_ticket", roomy.with_defaults("create_ticket", {"ticket_type": "bronze"}))
         for _ in range(256)])
    assert [result["status"] for _, result in answers] == ["created"] * 256
    assert len({result["ticket_id"] for _, result in answers}) == 256


def test_batch_of_257_is_malformed_and_nothing_of_it_happens(tenant, public):
    frames = [
        pack([0, 1 + at, "create_ticket", [tenant.with_defaults("create_ticket", {})]])
        for at in range(257)]
    public.send_frames(frames)
    malformed(public)
    assert public.call("ping")["status"] == "ok"
    assert tenant.call("list_tickets") == {"status": "ok", "tickets": []}


def test_batch_of_thousands_is_malformed(public):
    public.send_frames([pack([0, 1 + at, "ping", [{}]]) for at in range(5000)])
    malformed(public)
    assert public.call("ping")["status"] == "ok"


def test_no_frame_is_malformed(public):
    public.send_frames([])
    malformed(public)
    assert public.call("ping")["status"] == "ok"


def test_no_delimiter_is_malformed(public):
    public.send_frames([pack([0, 7, "ping", [{}]])], delimiter=False)
    answers = public.receive(5)
    assert len(answers) == 1
    assert answers[0][1] in (0, 7)  # its msgid if that could be read
    assert answers[0][2]["code"] == "malformed"
    assert public.call("ping")["status"] == "ok"


def test_batch_bad_frames_hurt_no_neighbour(roomy):
    """Every third frame is garbage."""
    client = roomy.client
    frames, good = [], []
    for at in range(240):
        if at % 3 == 1:
            frames.append(os.urandom(at % 50))
            frames[-1] = b"\xc1" + frames[-1]
        else:
            msgid, frame = client.frame(
                "create_ticket", roomy.with_defaults("create_ticket", {"ticket_type": "bronze"}))
            good.append(msgid)
            frames.append(frame)
    client.send_frames(frames)
    got, rejected = {}, 0
    while len(got) < 160 or rejected < 80:
        answers = client.receive()
        assert answers, (len(got), rejected)
        for answer in answers:
            if answer[1] == 0:
                assert answer[2]["code"] == "malformed"
                rejected += 1
            else:
                client.take(answer)
                got[answer[1]] = answer[3]
    assert rejected == 80
    assert {result["status"] for result in got.values()} == {"created"}
    assert set(got) == set(good)


def test_batch_of_all_methods_and_tenants(roomy, other):
    """One message may speak for several tenants."""
    answers = roomy.client.ask_all([
        ("ping", {}),
        ("availability", {"token": roomy.token, "client_id": roomy.client_id}),
        ("availability", {"token": other.token, "client_id": other.client_id}),
        ("availability", {"token": other.token, "client_id": roomy.client_id}),
        ("nonsense", {}),
        ("availability", {}),
    ])
    assert [error["code"] if error else result["status"] for error, result in answers] == [
        "ok", "ok", "ok", "permission_denied", "unknown_method", "unauthenticated"]


# -- sockets -------------------------------------------------------------------------------------


def test_req_socket_one_request_at_a_time(fleet, roomy):
    with Client(fleet.public, kind=zmq.REQ) as client:
        for _ in range(20):
            assert client.call("ping")["status"] == "ok"
        made = client.call("create_ticket", token=roomy.token, client_id=roomy.client_id,
                           request_id=new_id(), ticket_type="gold")
        assert made["status"] == "created"
        with refused("unauthenticated"):
            client.call("availability", client_id=roomy.client_id)
        client.send_frames([b"garbage"])
        malformed(client)
        assert client.call("ping")["status"] == "ok"


def test_req_socket_internal(fleet, roomy):
    with Client(fleet.internal, kind=zmq.REQ, keys=fleet.keys) as client:
        assert client.call("get_tenant", client_id=roomy.client_id)["status"] == "ok"


def test_same_msgid_on_two_connections(fleet, roomy):
    """A msgid is the connection's own."""
    params = {"token": roomy.token, "client_id": roomy.client_id}
    with Client(fleet.public) as one, Client(fleet.public) as two:
        assert one.send("availability", **params) == two.send("get_ticket", token=roomy.token,
                                                              ticket_id="tk_x")
        assert one.wait([1])[1][1]["status"] == "ok"
        assert two.wait([1])[1][0]["code"] == "not_found"


def test_msgid_zero_and_the_largest(public):
    for msgid in (0, 2**32 - 1):
        public.open.add(msgid)
        public.send_frames([pack([0, msgid, "ping", [{}]])])
        assert public.wait([msgid])[msgid][1]["status"] == "ok"


def test_pipelining_4096_open_requests(new_tenant):
    tenant = new_tenant(64)
    answers = tenant.client.ask_all(
        [("create_ticket", tenant.with_defaults("create_ticket", {"ticket_type": "bronze"}))
         for _ in range(4096)])
    codes = {error["code"] for error, _ in answers if error}
    assert not codes
    assert len({result["ticket_id"] for _, result in answers}) == 4096


def test_more_than_4096_open_requests_are_overloaded(fleet, roomy, public):
    """With the workers stopped for a moment, nothing is answered but what is too much."""
    requests = [("get_ticket", {"token": roomy.token, "budget_ms": 30000,
                                "ticket_id": roomy.create()["ticket_id"]})] * 4196
    public.call("ping")
    workers = [pid for name, pid in fleet.pids().items() if name.startswith("worker")]
    try:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        msgids = public.send_batch(requests)
        got = {}
        while len(got) < 100:
            answers = public.receive(5)
            assert answers, f"{len(got)} were refused at once"
            for answer in answers:
                msgid, error, result = public.take(answer)
                got[msgid] = (error, result)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert len(got) == 100
    assert {error["code"] for error, _ in got.values()} == {"overloaded"}
    assert all(error["retry_after_ms"] > 0 for error, _ in got.values())
    assert set(got) == set(msgids[4096:]), "the first 4,096 keep their place"
    rest = public.wait([msgid for msgid in msgids if msgid not in got], 40)
    assert len(rest) == 4096
    assert {error["code"] for error, _ in rest.values() if error} <= {"unavailable", "overloaded"}
    wait_until(lambda: not roomy.ask("availability")[0], 15)


# -- sizes ---------------------------------------------------------------------------------------


def frame_of(size, msgid=1):
    """A ping of exactly so many bytes, by an unknown key (which is ignored)."""
    low, high = 0, size
    while low <= high:
        middle = (low + high) // 2
        frame = pack([0, msgid, "ping", [{"x": b"p" * middle}]])
        if len(frame) == size:
            return frame
        low, high = (middle + 1, high) if len(frame) < size else (low, middle - 1)
    raise AssertionError(size)


def test_frame_of_16_kib_is_served(public):
    public.open.add(1)
    public.send_frames([frame_of(16384)])
    assert public.wait([1])[1][1]["status"] == "ok"


def test_batch_of_256_frames_of_16_kib(public):
    public.open |= set(range(1, 257))
    public.send_frames([frame_of(16384, 1 + at)
                        for at in range(256)])
    got = public.wait(range(1, 257))
    assert {result["status"] for _, result in got.values()} == {"ok"}


@pytest.mark.parametrize("size", [16385, 20000, 1 << 20, 32 << 20])
def test_frame_above_16_kib_closes_the_connection(fleet, roomy, size):
    with Client(fleet.public) as client, Client(fleet.public) as neighbour:
        neighbour.call("ping")
        monitor = client.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        client.call("ping")
        client.send_frames([b"\x00" * size])
        assert monitor.poll(5000), "the connection was not closed"
        client.socket.disable_monitor()
        assert neighbour.call("ping")["status"] == "ok"
        # The socket connects again by itself, and nothing of the old connection is left.
        assert client.call("ping")["status"] == "ok"
    assert roomy.call("availability")["status"] == "ok"


def test_answers_may_be_larger_than_16_kib(roomy):
    roomy.create_many(100, "bronze", subject="s" * 200)
    answer = roomy.call("list_tickets", limit=100)
    assert len(pack(answer)) > 16384


# -- what is not a request -----------------------------------------------------------------------

PING = [0, 7, "ping", [{}]]


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


NOT_REQUESTS = {
    "empty": (b"", 0),
    "never used byte": (b"\xc1", 0),
    "text": (b"GET / HTTP/1.1\r\n\r\n", 0),
    "nil": (pack(None), 0),
    "number": (pack(5), 0),
    "map": (pack({"method": "ping"}), 0),
    "empty array": (pack([]), 0),
    "one element": (pack([0]), 0),
    "three elements": (pack([0, 7, "ping"]), 7),
    "five elements": (pack([*PING, 1]), 7),
    "notification": (pack([2, "ping", [{}]]), 0),
    "response": (pack([1, 7, None, {}]), 0),
    "type 3": (pack([3, 7, "ping", [{}]]), 0),
    "type text": (pack(["0", 7, "ping", [{}]]), 0),
    "msgid negative": (pack([0, -1, "ping", [{}]]), 0),
    "msgid of 33 bits": (pack([0, 2**32, "ping", [{}]]), 0),
    "msgid a float": (pack([0, 7.0, "ping", [{}]]), 0),
    "msgid text": (pack([0, "7", "ping", [{}]]), 0),
    "msgid nil": (pack([0, None, "ping", [{}]]), 0),
    "method a number": (pack([0, 7, 1, [{}]]), 7),
    "method bin": (pack([0, 7, b"ping", [{}]]), 7),
    "method nil": (pack([0, 7, None, [{}]]), 7),
    "params a map": (pack([0, 7, "ping", {}]), 7),
    "params nil": (pack([0, 7, "ping", None]), 7),
    "no params": (pack([0, 7, "ping", []]), 7),
    "two params": (pack([0, 7, "ping", [{}, {}]]), 7),
    "params of text": (pack([0, 7, "ping", ["x"]]), 7),
    "key a number": (pack([0, 7, "ping", [{1: 2}]]), 7),
    "key bin": (pack([0, 7, "ping", [{b"x": 2}]]), 7),
    "depth 5": (pack([0, 7, "ping", [{"x": {"y": {}}}]]), 7),
    "depth 40": (pack([0, 7, "ping", [{"x": nested(37)}]]), 7),
    "depth 500": (pack([0, 7, "ping", [{"x": nested(500)}]]), 7),
    "depth 15000 at once": (b"\x91" * 15000, 0),
    "trailing byte": (pack(PING) + b"\x00", 7),
    "twice": (pack(PING) * 2, 7),
    "cut": (pack(PING)[:-1], 7),
    "cut in the method": (pack(PING)[:5], 7),
    "array of 2^32 - 1": (b"\xdd\xff\xff\xff\xff", 0),
    "array of 65535": (b"\xdc\xff\xff", 0),
    "map of 2^32 - 1": (b"\x94\x00\x07\xa4ping\x91\xdf\xff\xff\xff\xff", 7),
    "text of 4 GiB": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xdb\xff\xff\xff\xffab", 7),
    "bin of 4 GiB": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xc6\xff\xff\xff\xffab", 7),
    "bin one too long": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xc4\x03ab", 7),
    "ext": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xd4\x01\x00", 7),
    "timestamp": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xd6\xff\x00\x00\x00\x00", 7),
    "U+0000 in a text": (pack([0, 7, "ping", [{"x": "a\0b"}]]), 7),
    "U+0000 in a key": (pack([0, 7, "ping", [{"a\0b": 1}]]), 7),
    "U+0000 in the method": (pack([0, 7, "pi\0ng", [{}]]), 7),
    "not UTF-8": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xa2\xc3\x28", 7),
    "overlong UTF-8": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xa2\xc0\x80", 7),
    "surrogate": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xa3\xed\xa0\x80", 7),
    "above U+10FFFF": (b"\x94\x00\x07\xa4ping\x91\x81\xa1x\xa4\xf4\x90\x80\x80", 7),
}


@pytest.mark.parametrize("which", NOT_REQUESTS)
def test_not_a_request(roomy, public, which):
    frame, msgid = NOT_REQUESTS[which]
    public.send_frames([frame])
    malformed(public, msgid)
    assert public.call("ping")["status"] == "ok"


def test_every_truncation_of_a_request(public, roomy):
    frame = pack([0, 7, "create_ticket", [roomy.with_defaults("create_ticket", {
        "subject": "s", "payload": b"p"})]])
    for at in [0, 1, 2, *range(8, len(frame), 3)]:
        public.send_frames([frame[:at]])
        malformed(public, 0 if at < 3 else 7)


def test_requests_in_the_longer_encodings(public):
    """Not canonical, but msgpack: integers and lengths may be longer than they need."""
    for frame in (
        b"\xdc\x00\x04\xcd\x00\x00\xce\x00\x00\x00\x07\xd9\x04ping\xdc\x00\x01\xde\x00\x00",
        b"\xdd\x00\x00\x00\x04\xd0\x00\xd3" + struct.pack(">q", 7)
        + b"\xdb\x00\x00\x00\x04ping\xdd\x00\x00\x00\x01\xdf\x00\x00\x00\x00",
    ):
        public.open.add(7)
        public.send_frames([frame])
        assert public.wait([7])[7][1]["status"] == "ok"


def test_unknown_keys_are_ignored(roomy):
    made = roomy.create(**{"x-team": {"a": -1}, "x-list": [1, 2.5, True], "limit": "ignored",
                           "state": 7, "hold_ms": -1})
    assert made["status"] == "created"


@pytest.mark.parametrize("method", ["", "Ping", "ping ", "create_tickets", "x" * 1000, "__proto__"])
def test_unknown_method(public, method):
    with refused("unknown_method"):
        public.call(method)


def test_a_late_budget_is_not_lost(tenant):
    """A budget of 1 ms: the answer may be any of three, and a retry of the id finds the truth."""
    seen = set()
    for _ in range(30):
        request_id = new_id()
        error, result = tenant.ask(
            "create_ticket", ticket_type="bronze", budget_ms=1, request_id=request_id)
        assert not error or error["code"] in ("deadline_exceeded", "unavailable", "overloaded")
        seen.add(error["code"] if error else "ok")
        again = tenant.client.patient(
            "create_ticket", **tenant.with_defaults(
                "create_ticket", {"ticket_type": "bronze", "request_id": request_id}))
        if result:
            assert again["ticket_id"] == result["ticket_id"]
        elif error["code"] == "deadline_exceeded":
            assert "replayed" not in again, "deadline_exceeded says that nothing has happened"
    assert tenant.sql("select count(*) from tickets") == [(30,)]
    assert seen


def test_answers_come_soon(roomy, public):
    """Not a measurement: one request in a quiet fleet takes milliseconds, not a poll interval."""
    calm(3)
    times = []
    for _ in range(30):
        begin = time.monotonic()
        roomy.create("bronze")
        times.append(time.monotonic() - begin)
    assert sorted(times)[len(times) // 2] < 0.1
