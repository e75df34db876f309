# SPDX-License-Identifier: Apache-2.0
"""An independent client of docket/1, written from the contract's page alone: pyzmq and msgpack.

It also watches the rules that hold for every answer: each message begins with an empty delimiter,
each answer is [1, msgid, error, result] with exactly one of the two, an error has a known code and
no key that the contract does not name, and each request gets one answer.
"""

import base64
import ctypes
import itertools
import os
import time
import uuid

import msgpack
import zmq
from fleet import wait_until

CODES = {
    "malformed", "unknown_method", "invalid_argument", "unauthenticated", "permission_denied",
    "not_found", "already_exists", "conflict", "suspended", "rate_limited", "overloaded",
    "deadline_exceeded", "unavailable", "internal",
}
RETRY = {"rate_limited", "overloaded", "deadline_exceeded", "unavailable", "internal"}
ANSWER_S = 15  # none takes as long: budget 5 s, and a commit under way
MINUTE_MS = 60000
LEVELS = {"gold": 120, "silver": 240, "bronze": 480}
PASSWORD = "correct horse battery"

_sources = itertools.count(1)


class WireError(Exception):
    """The error map of an answer."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']} {error.get('field', '')}")
        self.code, self.field = error["code"], error.get("field")
        self.retry_after_ms = error.get("retry_after_ms")


class refused:
    """The block must get this error: `with refused("conflict", "subject"): ..`."""

    def __init__(self, code, field=None):
        self.code, self.field = code, field

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and not issubclass(kind, WireError):
            return False
        assert kind, f"{self.code} was expected, and it succeeded"
        assert value.code == self.code, value
        assert self.field is None or value.field == self.field, value
        return True


def check_answer(answer):
    assert isinstance(answer, list) and len(answer) == 4, answer
    kind, msgid, error, result = answer
    assert kind == 1 and isinstance(msgid, int) and 0 <= msgid < 2**32, answer
    assert (error is None) != (result is None), answer
    if error is None:
        assert isinstance(result, dict), answer
        return
    assert {"code", "message"} <= set(error), answer
    assert set(error) <= {"code", "message", "retry_after_ms", "field"}, answer
    assert error["code"] in CODES, answer
    assert isinstance(error["message"], str) and error["message"], answer
    if "retry_after_ms" in error:
        assert error["code"] in RETRY and error["retry_after_ms"] > 0, answer


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def new_id():
    """A UUIDv7, as bytes."""
    stamp = time.time_ns() // 1_000_000
    raw = bytearray(stamp.to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def id_text(request_id):
    return str(uuid.UUID(bytes=request_id))


def own_source():
    """A loopback address of one's own: quotas are per source."""
    number = next(_sources)
    return f"127.{64 + os.getpid() % 64}.{number // 250}.{number % 250 + 1}"


class Client:
    """One connection. `keys` names a fleet's key folder: CURVE, as for the internal endpoint."""

    def __init__(self, endpoint, kind=zmq.DEALER, keys=None, source=None, curve=None, **options):
        if source:
            endpoint = endpoint.replace("tcp://", f"tcp://{source}:0;")
        self.socket = zmq.Context.instance().socket(kind)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        if keys and not curve:
            public, secret = open(os.path.join(keys, "internal-client.key")).read().split()
            server = open(os.path.join(keys, "internal.pub")).read().split()[0]
            curve = (server, public, secret)
        if curve:
            server, public, secret = (key.encode() for key in curve)
            self.socket.curve_serverkey = server
            self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        self.socket.connect(endpoint)
        self.kind = kind
        self.msgids = itertools.count(1)
        self.open = set()
        self.early = {}  # answers that came while another one was waited for

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- frames ----------------------------------------------------------------------------------

    def send_frames(self, frames, delimiter=True):
        """As they are; REQ brings its own delimiter."""
        if self.kind == zmq.DEALER and delimiter:
            frames = [b"", *frames]
        self.socket.send_multipart(frames)

    def receive(self, timeout_s=ANSWER_S):
        """The answers of the next message; [] when none came in time."""
        if not self.socket.poll(max(0, int(timeout_s * 1000))):
            return []
        frames = self.socket.recv_multipart()
        if self.kind == zmq.DEALER:
            assert frames[0] == b"", "an answer begins with the empty delimiter"
            frames = frames[1:]
        assert frames, "a message without an answer"
        answers = [msgpack.unpackb(frame, raw=False) for frame in frames]
        for answer in answers:
            check_answer(answer)
        return answers

    # -- requests --------------------------------------------------------------------------------

    def frame(self, method, params):
        msgid = next(self.msgids)
        self.open.add(msgid)
        return msgid, pack([0, msgid, method, [params]])

    def send(self, method, **params):
        msgid, frame = self.frame(method, params)
        self.send_frames([frame])
        return msgid

    def send_batch(self, requests, size=256):
        """(method, params) pairs, `size` to a message; returns the msgids."""
        made = [self.frame(method, params) for method, params in requests]
        for at in range(0, len(made), size):
            self.send_frames([frame for _, frame in made[at : at + size]])
        return [msgid for msgid, _ in made]

    def take(self, answer):
        msgid = answer[1]
        assert msgid in self.open, f"an answer nobody waits for, or a second one: {answer}"
        self.open.discard(msgid)
        return msgid, answer[2], answer[3]

    def wait(self, msgids, timeout_s=30):
        """{msgid: (error, result)} of all of them."""
        wanted, got = set(msgids), {}
        for msgid in wanted & set(self.early):
            got[msgid] = self.early.pop(msgid)
        end = time.monotonic() + timeout_s
        while len(got) < len(wanted):
            answers = self.receive(end - time.monotonic())
            assert answers, f"{len(wanted) - len(got)} of {len(wanted)} answers are missing"
            for answer in answers:
                msgid, error, result = self.take(answer)
                (got if msgid in wanted else self.early)[msgid] = (error, result)
        return got

    def ask(self, method, **params):
        """(error, result) of one request."""
        msgid = self.send(method, **params)
        budget_ms = params.get("budget_ms")
        budget_s = (budget_ms if type(budget_ms) is int else 5000) / 1000
        return self.wait([msgid], budget_s + 10)[msgid]

    def ask_all(self, requests, size=256, timeout_s=30):
        """The same of many, in their order."""
        msgids = self.send_batch(requests, size)
        got = self.wait(msgids, timeout_s)
        return [got[msgid] for msgid in msgids]

    def call(self, method, **params):
        error, result = self.ask(method, **params)
        if error:
            raise WireError(error)
        return result

    def patient(self, method, bound_s=30, **params):
        """As a producer should: what may be tried again is, with the same request_id."""
        end = time.monotonic() + bound_s
        while True:
            error, result = self.ask(method, **params)
            if not error:
                return result
            if error["code"] not in RETRY - {"internal"} or time.monotonic() > end:
                raise WireError(error)
            time.sleep(error.get("retry_after_ms", 50) / 1000)

    def silent(self, seconds=1.0):
        """Nothing comes for that long."""
        return not self.receive(seconds)


# -- tenants -------------------------------------------------------------------------------------


class Tenant:
    """An account with a session, and a connection of its own on the public endpoint."""

    def __init__(self, fleet, resolvers=None, client=None):
        self.fleet = fleet
        self.client = client or Client(fleet.public, source=own_source())
        self.email = f"ops@{uuid.uuid4().hex[:16]}.example"
        self.name = f"Company {self.email[4:12]}"
        extra = {"resolvers": resolvers} if resolvers else {}
        made = self.client.patient(
            "create_account", request_id=new_id(), name=self.name, email=self.email,
            password=PASSWORD, budget_ms=30000, **extra,
        )
        self.client_id, self.sub_domain = made["client_id"], made["sub_domain"]
        self.token = self.login()["token"]

    def close(self):
        self.client.close()

    def login(self, password=PASSWORD):
        return self.client.patient("login", client_id=self.client_id, password=password)

    def with_defaults(self, method, params):
        params.setdefault("token", self.token)
        if method in ("create_ticket", "list_tickets", "availability", "logout", "change_password"):
            params.setdefault("client_id", self.client_id)
        if method == "create_ticket":
            params.setdefault("request_id", new_id())
            params.setdefault("ticket_type", "gold")
        return params

    def ask(self, method, **params):
        return self.client.ask(method, **self.with_defaults(method, params))

    def call(self, method, **params):
        return self.client.call(method, **self.with_defaults(method, params))

    def create(self, ticket_type="gold", **params):
        return self.call("create_ticket", ticket_type=ticket_type, **params)

    def create_many(self, count, ticket_type="gold", **params):
        """The results of so many creates, sent in messages of 256; no error among them."""
        answers = self.client.ask_all(
            [
                ("create_ticket", self.with_defaults(
                    "create_ticket", {"ticket_type": ticket_type, **params}))
                for _ in range(count)
            ]
        )
        assert not [error for error, _ in answers if error]
        return [result for _, result in answers]

    def ticket(self, ticket_id):
        return self.call("get_ticket", ticket_id=ticket_id)["ticket"]

    def tickets(self, **params):
        """All pages."""
        found, cursor = [], None
        while True:
            page = self.call("list_tickets", cursor=cursor, **params)
            found += page["tickets"]
            cursor = page.get("cursor")
            if cursor is None:
                return found

    @property
    def database(self):
        return self.fleet.sql(
            "select database from tenants where client_id = %s", (self.client_id,))[0][0]

    def sql(self, statement, values=None):
        """As the administrator, in the tenant's database."""
        return self.fleet.sql(statement, values, self.database)


def ticket_number(ticket_id):
    """tk_ kid 1 | client 12 | number 8, little-endian | tag 8."""
    raw = base64.urlsafe_b64decode(ticket_id[3:] + "=" * (-len(ticket_id[3:]) % 4))
    return int.from_bytes(raw[13:21], "little")


# -- time ----------------------------------------------------------------------------------------


def now_ms():
    return time.time_ns() // 1_000_000


def early_in_minute(room_s):
    """Is there so much left of this minute before it closes to booking? Not in its first moments:
    tenant time may be some milliseconds behind, in the minute before."""
    return 300 < now_ms() % MINUTE_MS < MINUTE_MS - 2000 - room_s * 1000


def calm(room_s=8):
    """Waits until a minute has so much room left; at most a minute, whenever it is asked."""
    wait_until(lambda: early_in_minute(room_s), 62, 0.05)


def is_replay(again, first):
    """The same answer as the first. The promise is the deadline; the slot is where it is now: a
    ticket made as a minute closes is pulled forward into it at once."""
    return again == {**first, "slot_start_ms": again["slot_start_ms"], "replayed": True}


def next_minute_ms(at_ms):
    return at_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS


# -- tokens --------------------------------------------------------------------------------------


def _sodium():
    library = ctypes.CDLL("libsodium.so.23")
    assert library.sodium_init() >= 0
    return library


def _base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_seed(keys):
    """(kid, seed) of the key that signs: the first line of token.keys."""
    kid, seed = open(os.path.join(keys, "token.keys")).readline().split()
    return int(kid), bytes.fromhex(seed)


def make_token(client_id, kid, seed, issued_s, expires_s, header=b"v4.public."):
    """A PASETO v4.public token, as docket signs them."""

    def stamp(seconds):
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))

    def pieces(*parts):
        text = len(parts).to_bytes(8, "little")
        return text + b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    message = (
        f'{{"sub":"{client_id}","jti":"{os.urandom(16).hex()}",'
        f'"iat":"{stamp(issued_s)}","exp":"{stamp(expires_s)}"}}'
    ).encode()
    footer = f'{{"kid":"dkt-{kid}"}}'.encode()
    sodium = _sodium()
    public, secret = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
    sodium.crypto_sign_seed_keypair(public, secret, seed)
    signature = ctypes.create_string_buffer(64)
    signed = pieces(b"v4.public.", message, footer, b"")
    sodium.crypto_sign_detached(
        signature, None, signed, ctypes.c_ulonglong(len(signed)), secret)
    return header.decode() + _base64url(message + signature.raw) + "." + _base64url(footer)


def role_password(keys, role):
    """The password of a tenant's database role, as docket derives it from its master key."""
    import hashlib

    master = bytes.fromhex(open(os.path.join(keys, "master.key")).read().strip())
    digest = hashlib.blake2b(
        b"docket role password:" + role.encode(), key=master, digest_size=32).digest()
    return _base64url(digest)
