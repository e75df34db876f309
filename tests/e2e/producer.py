# SPDX-License-Identifier: Apache-2.0
"""A producer as others would write it: DEALER, msgpack, the public endpoint. Keeps what it was
told, so that a test can compare it with what the fleet did."""

import threading
import time
import uuid

import msgpack
import zmq

PASSWORD = "a long enough password"


class Producer:
    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.msgid = 0
        self.open = {}  # msgid: callback

    def close(self):
        self.socket.close()

    def submit(self, method, params, callback):
        self.msgid += 1
        self.open[self.msgid] = callback
        self.socket.send_multipart([b"", msgpack.packb([0, self.msgid, method, [params]])])

    def poll(self, bound_ms):
        """Takes what has arrived; the callbacks get (error, result)."""
        while self.socket.poll(bound_ms):
            for frame in self.socket.recv_multipart()[1:]:
                _, msgid, error, result = msgpack.unpackb(frame)
                self.open.pop(msgid)(error, result)
            bound_ms = 0

    def call(self, method, bound_s=20, **params):
        answers = []
        self.submit(method, params, lambda *answer: answers.append(answer))
        end = time.monotonic() + bound_s
        while not answers:
            assert time.monotonic() < end, f"{method} was not answered"
            self.poll(100)
        assert answers[0][0] is None, answers[0]
        return answers[0][1]


    def patient(self, method, bound_s=30, **params):
        """The same; what may be tried again is."""
        end = time.monotonic() + bound_s
        while True:
            answers = []
            self.submit(method, params, lambda *answer: answers.append(answer))
            while not answers:
                assert time.monotonic() < end, f"{method} was not answered"
                self.poll(100)
            error, result = answers[0]
            if error is None:
                return result
            assert "retry_after_ms" in error and time.monotonic() < end, error
            time.sleep(error["retry_after_ms"] / 1000)


class Tenant:
    def __init__(self, producer, resolvers=4):
        made = producer.call(
            "create_account",
            bound_s=40,
            budget_ms=30000,  # the first databases of a fleet are made meanwhile
            request_id=uuid.uuid4().bytes,
            name="Acme",
            email=f"{uuid.uuid4().hex}@example.com",
            password=PASSWORD,
            resolvers=resolvers,
        )
        self.client = made["client_id"]
        self.database = None
        self.token = producer.call("login", bound_s=40, budget_ms=30000, client_id=self.client,
                                   password=PASSWORD)["token"]
        self.created, self.cancelled = set(), set()


class Load(threading.Thread):
    """Creates tickets of these tenants, a third of which it cancels, until stop()."""

    WINDOW = 32

    def __init__(self, endpoint, tenants, pause_s=0.002):
        super().__init__(daemon=True)
        self.endpoint, self.tenants, self.pause_s = endpoint, tenants, pause_s
        self.stopped = threading.Event()
        self.requests, self.slowest_s, self.failed = 0, 0.0, []

    def stop(self):
        self.stopped.set()
        self.join(30)
        assert not self.is_alive()

    def submit(self, producer, tenant, method, params, good):
        begun = time.monotonic()

        def answered(error, result):
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            if error is not None:
                self.failed.append((method, error))
            elif result["status"] != "refused":
                good(result)

        self.requests += 1
        producer.submit(method, {"token": tenant.token, **params}, answered)

    def create(self, producer, tenant):
        def created(result):
            ticket = result["ticket_id"]
            tenant.created.add(ticket)
            if len(tenant.created) % 3 == 0:
                self.submit(
                    producer,
                    tenant,
                    "cancel_ticket",
                    {"ticket_id": ticket},
                    lambda answer: answer["status"] == "cancelled" and tenant.cancelled.add(ticket),
                )

        params = {
            "client_id": tenant.client,
            "request_id": uuid.uuid4().bytes,
            "ticket_type": "bronze",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        }
        self.submit(producer, tenant, "create_ticket", params, created)

    def run(self):
        producer, turn = Producer(self.endpoint), 0
        while not self.stopped.is_set():
            if len(producer.open) < self.WINDOW:
                self.create(producer, self.tenants[turn % len(self.tenants)])
                turn += 1
            producer.poll(0)
            time.sleep(self.pause_s)
        end = time.monotonic() + 10
        while producer.open and time.monotonic() < end:
            producer.poll(100)
        self.failed += [("silence", None)] * len(producer.open)
        producer.close()
