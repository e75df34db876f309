# SPDX-License-Identifier: Apache-2.0
"""The mission's own query against the `slots` view names the minute that the ledger gives.

DOCKET_SLOT_OPERATIONS sets how many random operations come before; the default keeps it short.
"""

import os
import random

import psycopg2
import pytest
from client import LEVELS, MINUTE_MS, Tenant, calm, new_id

OPERATIONS = int(os.environ.get("DOCKET_SLOT_OPERATIONS", "2000"))
QUERY = (
    "select floor(extract(epoch from min(time)) * 1000)::int8 from slots"
    " where available = 'available' and time > now() and time < now() + %s * interval '1 minute'"
)


class View:
    """One connection to the tenant's database, for many questions."""

    def __init__(self, tenant):
        self.connection = psycopg2.connect(tenant.fleet.postgres_uri(tenant.database))
        self.connection.autocommit = True

    def ask(self, query, *values):
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    def minute_ms(self, level):
        return self.ask(QUERY, level)[0][0]


def compare(tenant, view, seen):
    """For each class: what the view names is what the next create gets."""
    for name, level in LEVELS.items():
        calm(3)
        named = view.minute_ms(level)
        now = view.ask("select floor(extract(epoch from now()) * 1000)::int8")[0][0]
        # calm() has seen 300 ms of this minute: what ends in time with it, does so in tenant time.
        in_time = named is not None and named + MINUTE_MS <= now + level * MINUTE_MS - 200
        made = tenant.create(name)
        if in_time:
            assert made["status"] == "created"
            assert made["slot_start_ms"] == named, f"{name}: {made} against {named}"
            seen["same"] += 1
        else:
            # Nothing free for this class, or only a minute that ends too late: the ledger moves
            # others, or says no.
            assert made["status"] == "refused" or made["slot_start_ms"] != named
            seen["full"] += 1
        if made["status"] == "created":
            tenant.call("cancel_ticket", ticket_id=made["ticket_id"])


@pytest.mark.parametrize("resolvers", [1, 4])
def test_slots_view_names_the_ledgers_minute(fleet, resolvers):
    generator = random.Random(resolvers)
    tenant = Tenant(fleet, resolvers)
    view, live, seen = View(tenant), [], {"same": 0, "full": 0}
    compare(tenant, view, seen)
    done, share = 0, OPERATIONS // 2
    while done < share:
        requests = []
        for _ in range(min(50, share - done)):
            if live and generator.random() < 0.45:
                ticket_id = live.pop(generator.randrange(len(live)))
                method = "cancel_ticket" if generator.random() < 0.7 else "resolve_ticket"
                requests.append((method, {"token": tenant.token, "ticket_id": ticket_id}))
            else:
                requests.append(("create_ticket", tenant.with_defaults(
                    "create_ticket", {"ticket_type": generator.choice(list(LEVELS)),
                                      "request_id": new_id()})))
        for error, result in tenant.client.ask_all(requests):
            assert not error, error
            if result["status"] == "created":
                live.append(result["ticket_id"])
        done += len(requests)
        compare(tenant, view, seen)
    assert seen["same"] >= 20, seen
    # And the database keeps what it is asked to keep.
    assert view.ask(
        "select count(*) - count(distinct (slot_start, lane)),"
        " count(*) filter (where slot_start + '1 min' > deadline) from tickets"
        " where lane is not null") == [(0, 0)]
    view.connection.close()
    tenant.close()


def test_slots_view_of_a_fresh_tenant(tenant):
    calm(3)
    rows = tenant.sql("select count(*), count(distinct time), max(lane) from slots"
                      " where available = 'available'")
    assert rows[0][1] in (478, 479, 480)
    assert rows[0][0] == rows[0][1] and rows[0][2] == 0


def test_slots_view_on_a_full_tenant(tenant):
    """Nothing but the one minute that begins but does not end in time."""
    calm(8)
    made = tenant.create_many(119)
    last = max(one["slot_start_ms"] for one in made)
    named = View(tenant).minute_ms(120)
    assert named in (None, last + MINUTE_MS)
    assert tenant.create()["status"] == "refused"
