#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Many tenants with work in the same minute: how late is dispatch, what does it cost requests?

A fleet of its own. `--kill S`: a worker is killed S seconds before the second minute, with no
traffic at all. Dispatch times are read from the tenants' databases.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

from client import PASSWORD, Client, early_in_minute, new_id, next_minute_ms, now_ms  # noqa: E402
from fleet import Fleet, wait_until  # noqa: E402

AT_A_TIME = 32


def per_cent(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else None


def text(values):
    if not values:
        return "none"
    shares = [f"p{share} {per_cent(values, share):.1f}" for share in (50, 99)]
    return f"{len(values)}: {' '.join(shares)} max {max(values):.1f} min {min(values):.1f}"


def make_accounts(inside, count):
    made = []
    while len(made) < count:
        requests = [
            ("create_account", {
                "request_id": new_id(), "name": "Bench", "password": PASSWORD, "budget_ms": 60000,
                "email": f"{new_id().hex()}@bench.example"})
            for _ in range(min(AT_A_TIME, count - len(made)))
        ]
        for error, result in inside.ask_all(requests, timeout_s=90):
            if not error:
                made.append(result["client_id"])
    return made


def in_slices(inside, requests):
    """A thousand databases are not opened at once by anybody who wants an answer in 5 s."""
    answers = []
    for begin in range(0, len(requests), AT_A_TIME):
        answers += inside.ask_all(requests[begin:begin + AT_A_TIME], timeout_s=60)
    return answers


def create(client_id):
    return ("create_ticket", {
        "client_id": client_id, "request_id": new_id(), "ticket_type": "gold"})


def load(inside, clients, rate, until_ms):
    """An open loop; [(sent at ms, latency ms)]."""
    sent, done, at = {}, [], 0
    begin = time.monotonic()
    while now_ms() < until_ms or sent:
        while now_ms() < until_ms and at < (time.monotonic() - begin) * rate:
            method, params = create(clients[at % len(clients)])
            due = begin + at / rate
            sent[inside.send(method, **params)] = (now_ms() - (time.monotonic() - due) * 1000, due)
            at += 1
        for answer in inside.receive(0.001):
            msgid, error, _ = inside.take(answer)
            stamp, due = sent.pop(msgid)
            done.append((stamp, (time.monotonic() - due) * 1000, error))
        assert now_ms() < until_ms + 20000, f"{len(sent)} answers are missing"
    return done


def lateness(fleet, since_ms):
    """ms between the start of a minute and the commit of its dispatch; below 0 is early."""
    late = []
    for (database,) in fleet.sql("select database from tenants"):
        late += [float(row[0]) for row in fleet.sql(
            "select extract (epoch from dispatched_at - slot_start) * 1000 from tickets"
            " where dispatched_at is not null and slot_start > to_timestamp (%s)",
            (since_ms / 1000,), database)]
    return late


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--rate", type=int, default=200, help="requests a second")
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--kill", type=float, help="seconds before the minute")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="docket-minutes-")
    os.chmod(folder, 0o755)
    fleet = Fleet(folder, data=os.path.join(folder, "data")).start()
    try:
        with Client(fleet.internal, keys=fleet.keys) as inside:
            run(fleet, inside, options)
    finally:
        fleet.kill_everything()
        shutil.rmtree(folder, ignore_errors=True)


def run(fleet, inside, options):
    begin = time.monotonic()
    clients = make_accounts(inside, options.tenants)
    print(f"{len(clients)} tenants in {time.monotonic() - begin:.1f} s")
    # One more than minutes: every minute of the run has work for everybody.
    tickets = options.minutes + 1
    made = in_slices(inside, [create(one) for one in clients for _ in range(tickets)])
    errors = [error for error, _ in made if error]
    print(f"tickets: {len(made)}, errors {len(errors)} {errors[:1]}")
    wait_until(lambda: early_in_minute(20), 40)
    first_ms = next_minute_ms(now_ms())
    if options.kill is None:
        done = load(inside, clients, options.rate, first_ms + (options.minutes - 1) * 60000 + 5000)
        good = [(stamp % 60000, ms) for stamp, ms, error in done if not error]
        print(f"requests: {len(done)}, errors {len(done) - len(good)}; ms")
        print("  second 58 and 59:", text([ms for at, ms in good if at >= 58000]))
        print("  second 0:        ", text([ms for at, ms in good if at < 1000]))
        print("  the rest:        ", text([ms for at, ms in good if 1000 <= at < 58000]))
        print("dispatch after the minute's start, ms:", text(lateness(fleet, first_ms - 1)))
        return
    second_ms = first_ms + 60000
    wait_until(lambda: now_ms() >= second_ms - options.kill * 1000, 125, 0.005)
    fleet.kill("worker-0", signal.SIGKILL)
    print("killed", second_ms - now_ms(), "ms before the minute")
    wait_until(lambda: now_ms() >= second_ms + 25000, 125, 0.1)
    print("dispatch after the minute's start, ms:", text(lateness(fleet, second_ms - 1)))
    counts = [fleet.sql("select count (*) from tickets where dispatched_at is not null", None, name)
              for (name,) in fleet.sql("select database from tenants")]
    print("dispatched per tenant:", sorted({rows[0][0] for rows in counts}))


if __name__ == "__main__":
    main()
