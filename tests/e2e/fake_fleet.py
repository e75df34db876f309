#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Plays `docket up` for the tests of the commands: the wire contract over a naive ledger in memory
and tickets in real PostgreSQL databases. It can be told to break a promise (FAKE_FAULT), which
shows that the demo's proof notices: double books a minute twice, lose forgets an acknowledged
ticket, cancel leaves a cancelled ticket open, late breaks a deadline, twice makes a second ticket
for a repeated request, ghost makes one that nobody asked for."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import msgpack
import psycopg2
import zmq
from psycopg2.extras import execute_values

LEVELS = {"gold": 120, "silver": 240, "bronze": 480}
STATES = ["open", "dispatched", "resolved", "cancelled"]
PG = "/usr/lib/postgresql/15/bin"
FAULT = os.environ.get("FAKE_FAULT", "")
TICKETS = """create table tickets (id bigint primary key, request_id uuid, class text,
slot_start timestamptz, lane int, deadline timestamptz, state smallint, breached bool default false,
at_risk bool default false, created_at timestamptz default now())"""


def now_ms():
    return time.time_ns() // 1_000_000


def text_id(prefix, client, number):
    body = bytes([1]) + client.encode()[:12].ljust(12, b"=") + number.to_bytes(8, "little")
    return prefix + base64.urlsafe_b64encode(body + b"macmacma").rstrip(b"=").decode()


def free_port():
    """The first of four free ones, as far as one can tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 65000)


class Error(Exception):
    def __init__(self, code, text, field=None):
        super().__init__(code)
        self.body = {"code": code, "message": text, **({"field": field} if field else {})}


class Tenant:
    def __init__(self, fleet, name, resolvers, password):
        self.id = "cl_" + base64.b32encode(os.urandom(8)).decode()[:13]
        self.name, self.resolvers, self.password = name, resolvers, password
        self.token = "token-" + self.id
        self.minutes, self.tickets, self.requests, self.holds = {}, {}, {}, {}
        self.revoked = self.suspended = False
        self.held = 0
        self.by_id = {}
        self.database = "t_" + self.id[3:].lower()
        fleet.admin.execute(f"create database {self.database}")
        self.connection = psycopg2.connect(fleet.uri(self.database))
        self.sql = self.connection.cursor()
        self.sql.execute(TICKETS)
        self.connection.commit()
        fleet.admin.execute(
            "insert into tenants values (%s, %s, %s)", (self.id, name, self.database)
        )
        self.changed = {}

    def place(self, level):
        """The earliest free lane of a minute that ends in time."""
        now = now_ms()
        first = (now + 2000) // 60000 + 1
        for minute in range(first, (now + level * 60000) // 60000):
            lanes = self.minutes.setdefault(minute, set())
            if len(lanes) < self.resolvers:
                lane = next(i for i in range(self.resolvers) if i not in lanes)
                lanes.add(lane)
                return minute, lane
        return None

    def refusal(self, replay):
        free = {}
        for name, level in LEVELS.items():
            place = self.place(level)
            if place:
                self.minutes[place[0]].discard(place[1])
                free[name] = place
        rows = [
            {"ticket_type": n, "slot_start_ms": p[0] * 60000, "deadline_ms": now_ms() + 1}
            for n, p in free.items()
        ]
        return {
            "status": "refused", "reason": "no_slot", "earliest_ms": now_ms() + 60000,
            "alternatives": rows, **replay,
        }

    def book(self, params, place):
        number = len(self.tickets) + 1
        deadline = now_ms() + LEVELS[params["ticket_type"]] * 60000
        ticket = {
            "ticket_id": text_id("tk_", self.id, number), "ticket_type": params["ticket_type"],
            "state": "open", "slot_start_ms": place[0] * 60000, "deadline_ms": deadline,
            "created_ms": now_ms(), "breached": False, "at_risk": False,
            "subject": params.get("subject", ""),
        }
        self.tickets[number] = (ticket, place, params["request_id"])
        self.by_id[ticket["ticket_id"]] = number
        self.changed[number] = True
        answer = {
            "status": "created", "ticket_id": ticket["ticket_id"],
            "slot_id": text_id("sl_", self.id, number),
            "slot_start_ms": ticket["slot_start_ms"], "deadline_ms": deadline,
        }
        self.requests[params["request_id"]] = answer
        return answer

    def row(self, number):
        ticket, place, request_id = self.tickets[number]
        state, deadline, lane = STATES.index(ticket["state"]), ticket["deadline_ms"], place[1]
        if number == 7:
            lane = self.tickets[6][1][1] if FAULT == "double" else lane
            place = self.tickets[6][1] if FAULT == "double" else place
            deadline = place[0] * 60000 + 59000 if FAULT == "late" else deadline
        if FAULT == "cancel" and state == 3:
            state = 0
        return (
            number, str(uuid.UUID(bytes=request_id)), ticket["ticket_type"], place[0] * 60, lane,
            deadline / 1000, state,
        )

    def commit(self):
        rows = [self.row(n) for n in self.changed if not (FAULT == "lose" and n == 7)]
        if FAULT == "ghost" and 7 in self.changed:
            rows.append((10**9, str(uuid.uuid4()), "gold", 600, 0, 9999999999, 0))
        self.changed = {}
        if rows:
            execute_values(
                self.sql,
                "insert into tickets (id, request_id, class, slot_start, lane, deadline, state) "
                "values %s on conflict (id) do update set state = excluded.state",
                rows,
                "(%s, %s, %s, to_timestamp(%s), %s, to_timestamp(%s), %s)",
            )
            self.connection.commit()


class Fleet:
    def __init__(self, port, data):
        self.port = port
        self.folder = data or tempfile.mkdtemp(prefix="docket-fake-")
        os.makedirs(self.folder + "/keys", exist_ok=True)
        os.chmod(self.folder, 0o755)
        self.tenants = {}
        self.start_postgres()
        self.context = zmq.Context()
        self.public = self.context.socket(zmq.ROUTER)
        self.internal = self.context.socket(zmq.ROUTER)
        self.curve()
        for index, router in enumerate([self.public, self.internal]):
            router.linger = 0
            router.bind(f"tcp://127.0.0.1:{port + index}")

    def curve(self):
        public, secret = zmq.curve_keypair()
        client = zmq.curve_keypair()
        self.internal.curve_server = True
        self.internal.curve_publickey, self.internal.curve_secretkey = public, secret
        for name, keys in (("internal.pub", [public]), ("internal-client.key", client)):
            with open(f"{self.folder}/keys/{name}", "w", encoding="ascii") as out:
                out.write("".join(key.decode() + "\n" for key in keys))

    def uri(self, database="docket_control"):
        return f"postgresql://postgres@127.0.0.1:{self.port + 3}/{database}"

    def postgres(self, *command):
        drop = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = (drop if os.geteuid() == 0 else []) + [f"{PG}/{command[0]}", *command[1:]]
        return subprocess.Popen(command, cwd="/", **quiet)

    def start_postgres(self):
        data = self.data = tempfile.mkdtemp(prefix="docket-fake-")
        if os.geteuid() == 0:
            shutil.chown(data, "postgres")
        self.postgres("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N").wait()
        self.server = self.postgres(
            "postgres", "-D", data, "-p", str(self.port + 3), "-k", "", "-F",
            "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300",
        )
        for _ in range(600):
            try:
                first = psycopg2.connect(self.uri("postgres"))
                break
            except psycopg2.OperationalError:
                time.sleep(0.05)
        first.autocommit = True
        first.cursor().execute("create database docket_control")
        first.close()
        self.control = psycopg2.connect(self.uri())
        self.control.autocommit = True
        self.admin = self.control.cursor()
        self.admin.execute("create table tenants (client_id text, name text, database text)")

    # -- methods ---------------------------------------------------------------------------------

    def tenant(self, params, internal):
        key = params.get("client_id") or next(
            (t.id for t in self.tenants.values() if self.owns(t, params)), None
        )
        tenant = self.tenants.get(key)
        if not tenant:
            raise Error("not_found", "no such id")
        if not internal and (tenant.revoked or params.get("token") != tenant.token):
            raise Error("unauthenticated", "log in first")
        return tenant

    @staticmethod
    def owns(tenant, params):
        return any(
            text_id(p, tenant.id, 0)[:20] == params.get(k, "")[:20]
            for p, k in (("tk_", "ticket_id"), ("sl_", "slot_id"))
        )

    def create_account(self, params, _internal):
        if len(params["password"]) < 10:
            raise Error("invalid_argument", "at least 10 characters", "password")
        tenant = Tenant(self, params["name"], params.get("resolvers", 1), params["password"])
        self.tenants[tenant.id] = tenant
        return {"status": "created", "client_id": tenant.id, "sub_domain": "sub-" + tenant.id[3:]}

    def login(self, params, _internal):
        tenant = self.tenants.get(params["client_id"])
        if not tenant or tenant.password != params["password"]:
            raise Error("unauthenticated", "wrong password or unknown account")
        tenant.revoked = False
        return {
            "status": "ok", "sub_domain": "sub", "token": tenant.token,
            "expires_ms": now_ms() + 900000,
        }

    def logout(self, params, internal):
        self.tenant(params, internal).revoked = True
        return {"status": "ok"}

    def change_password(self, params, internal):
        tenant = self.tenant(params, internal)
        tenant.password, tenant.revoked = params["new_password"], True
        return {"status": "ok"}

    def create_ticket(self, params, internal):
        tenant = self.tenant(params, internal)
        if params["ticket_type"] not in LEVELS:
            raise Error("invalid_argument", "there is no such class", "ticket_type")
        before = tenant.requests.get(params["request_id"])
        if before and FAULT != "twice":
            return {**before, "replayed": True}
        if tenant.suspended:
            raise Error("suspended", "the tenant is suspended")
        place = tenant.place(LEVELS[params["ticket_type"]])
        return tenant.book(params, place) if place else tenant.refusal({})

    def numbered(self, params, internal):
        tenant = self.tenant(params, internal)
        number = tenant.by_id.get(params["ticket_id"])
        if not number:
            raise Error("not_found", "no such id")
        ticket, place, _ = tenant.tickets[number]
        return tenant, number, ticket, place

    def cancel_ticket(self, params, internal):
        tenant, number, ticket, place = self.numbered(params, internal)
        if ticket["state"] in ("dispatched", "resolved"):
            return {"status": "too_late"}
        if ticket["state"] == "open":
            ticket["state"] = "cancelled"
            tenant.minutes[place[0]].discard(place[1])
            tenant.changed[number] = True
        return {"status": "cancelled"}

    def resolve_ticket(self, params, internal):
        tenant, number, ticket, _ = self.numbered(params, internal)
        if ticket["state"] == "cancelled":
            raise Error("conflict", "it was cancelled")
        ticket["state"] = "resolved"
        tenant.changed[number] = True
        return {"status": "resolved", "met": True}

    def get_ticket(self, params, internal):
        return {"status": "ok", "ticket": self.numbered(params, internal)[2]}

    def list_tickets(self, params, internal):
        rows = [t for t, _, _ in self.tenant(params, internal).tickets.values()]
        state = params.get("state")
        rows = [row for row in rows if not state or row["state"] == state]
        if state == "dispatched":  # a ticket that is asked for is dispatched: two at a time
            opened = self.tenant(params, internal).tickets.values()
            rows = [t for t, _, _ in opened if t["state"] == "open"][:2]
            for row in rows:
                row["state"] = "dispatched"
        return {"status": "ok", "tickets": rows[: params.get("limit", 100)]}

    def availability(self, params, internal):
        self.tenant(params, internal)
        return {"status": "ok", "classes": {"gold": {"free": 119, "next_free_ms": now_ms()}}}

    def validate_eta(self, params, _internal):
        tenant = self.tenant(params, True)
        place = tenant.place(LEVELS[params["ticket_type"]])
        if not place:
            return tenant.refusal({})
        slot_id = text_id("sl_", tenant.id, 10**6 + tenant.held)
        tenant.holds[slot_id] = place
        tenant.held += 1
        return {
            "status": "held", "slot_id": slot_id, "slot_start_ms": place[0] * 60000,
            "hold_expires_ms": now_ms() + params.get("hold_ms", 30000),
        }

    def allocate_slot(self, params, _internal):
        tenant = self.tenant(params, True)
        if params["request_id"] in tenant.requests:
            return {**tenant.requests[params["request_id"]], "replayed": True}
        if params["slot_id"] not in tenant.holds:
            return {"status": "taken"}
        return tenant.book(params, tenant.holds.pop(params["slot_id"]))

    def release_slot(self, params, _internal):
        tenant = self.tenant(params, True)
        place = tenant.holds.pop(params["slot_id"], None)
        if place:
            tenant.minutes[place[0]].discard(place[1])
        return {"status": "released"}

    def get_tenant(self, params, _internal):
        tenant = self.tenant(params, True)
        return {
            "status": "ok", "client_id": tenant.id, "name": tenant.name,
            "resolvers": tenant.resolvers, "suspended": tenant.suspended,
        }

    def set_tenant(self, params, _internal):
        tenant = self.tenant(params, True)
        if params.get("resolvers", tenant.resolvers) < tenant.resolvers and tenant.tickets:
            ids = [ticket["ticket_id"] for ticket, _, _ in tenant.tickets.values()][:100]
            return {"status": "refused", "count": len(ids), "tickets": ids}
        tenant.resolvers = params.get("resolvers", tenant.resolvers)
        tenant.suspended = params.get("suspended", tenant.suspended)
        return {"status": "ok"}

    def list_tenants(self, params, internal):
        rows = [self.get_tenant({"client_id": key}, internal) for key in self.tenants]
        return {"status": "ok", "tenants": rows[: params.get("limit", 100)]}

    # -- the loop --------------------------------------------------------------------------------

    def answer(self, frame, internal):
        _, msgid, method, (params,) = msgpack.unpackb(frame)
        try:
            return [1, msgid, None, getattr(self, method)(params, internal)]
        except Error as error:
            return [1, msgid, error.body, None]

    def serve(self):
        poller = zmq.Poller()
        for router in (self.public, self.internal):
            poller.register(router, zmq.POLLIN)
        while True:
            answers = []
            for router, _ in poller.poll(1000):
                for _ in range(64):
                    try:
                        identity, _, *frames = router.recv_multipart(zmq.NOBLOCK)
                    except zmq.Again:
                        break
                    internal = router is self.internal
                    rows = [msgpack.packb(self.answer(frame, internal)) for frame in frames]
                    answers.append((router, [identity, b"", *rows]))
            for tenant in self.tenants.values():
                if tenant.changed:
                    tenant.commit()
            for router, message in answers:
                router.send_multipart(message)

    def stop(self, *_):
        self.server.send_signal(signal.SIGINT)
        self.server.wait(10)
        for folder in (self.folder, self.data):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def main():
    words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    port = int(words["--port"]) or free_port()
    fleet = Fleet(port, words.get("--data"))
    signal.signal(signal.SIGTERM, fleet.stop)
    signal.signal(signal.SIGINT, fleet.stop)
    print(
        f"ready public=tcp://127.0.0.1:{port} internal=tcp://127.0.0.1:{port + 1} "
        f"nats=nats://127.0.0.1:{port + 2} postgres={fleet.uri()} keys={fleet.folder}/keys",
        flush=True,
    )
    fleet.serve()


main()
