# SPDX-License-Identifier: Apache-2.0
"""Holds, on the internal endpoint: validate_eta, allocate_slot, release_slot."""

import pytest
from client import (
    LEVELS, MINUTE_MS, calm, id_text, is_replay, new_id, next_minute_ms, now_ms, refused,
)
from fleet import wait_until


@pytest.fixture
def desk(tenant, internal):
    """The internal methods for one fresh tenant."""

    class Desk:
        client_id = tenant.client_id

        @staticmethod
        def validate(ticket_type="gold", **params):
            return internal.call(
                "validate_eta", **{"client_id": tenant.client_id, "ticket_type": ticket_type,
                                   **params})

        @staticmethod
        def allocate(slot_id, ticket_type="gold", **params):
            return internal.call(
                "allocate_slot", **{"client_id": tenant.client_id, "ticket_type": ticket_type,
                                    "request_id": new_id(), "slot_id": slot_id, **params})

        @staticmethod
        def release(slot_id):
            return internal.call("release_slot", slot_id=slot_id)

        set = staticmethod(lambda **params: internal.call(
            "set_tenant", client_id=tenant.client_id, **params))

    Desk.tenant = tenant
    return Desk


def test_validate_eta_holds(desk):
    before = now_ms()
    result = desk.validate()
    assert set(result) == {"status", "slot_id", "slot_start_ms", "hold_expires_ms"}
    assert result["status"] == "held"
    assert result["slot_id"].startswith("sl_") and len(result["slot_id"]) <= 64
    assert result["slot_start_ms"] % MINUTE_MS == 0
    # Earliest with s >= now + ttl + 2 s, so it lives its whole 30 s.
    assert before + 29_000 <= result["hold_expires_ms"] <= now_ms() + 31_000
    assert result["slot_start_ms"] >= result["hold_expires_ms"] + 2000


@pytest.mark.parametrize("hold_ms", [1000, 30000, 120000, 300000])
def test_validate_eta_takes_a_slot_that_outlives_the_hold(desk, hold_ms):
    calm(5)
    before = now_ms()
    result = desk.validate(hold_ms=hold_ms)
    wanted = next_minute_ms(before + hold_ms + 2000 - 1)
    assert result["slot_start_ms"] == wanted or wanted != next_minute_ms(now_ms() + hold_ms + 1999)
    assert before - 1000 <= result["hold_expires_ms"] - hold_ms <= now_ms() + 1000


def test_validate_eta_holds_exclude_each_other_and_tickets(desk):
    calm()
    held = [desk.validate("silver")["slot_start_ms"] for _ in range(5)]
    created = [desk.tenant.create("silver")["slot_start_ms"] for _ in range(5)]
    assert len(set(held + created)) == 10


def test_validate_eta_counts_in_availability(desk):
    calm()
    desk.validate()
    assert desk.tenant.call("availability")["classes"]["gold"]["free"] == 118


def test_validate_eta_refused_like_create_ticket(desk):
    calm()
    desk.tenant.create_many(119)
    minute = next_minute_ms(now_ms())
    result = desk.validate()
    assert set(result) == {"status", "reason", "earliest_ms", "alternatives"}
    assert (result["status"], result["reason"]) == ("refused", "no_slot")
    assert result["earliest_ms"] == minute
    assert [one["ticket_type"] for one in result["alternatives"]] == ["silver", "bronze"]


def test_validate_eta_full_of_holds_is_refused(desk, internal):
    calm()
    answers = internal.ask_all(
        [("validate_eta", {"client_id": desk.client_id, "ticket_type": "gold"})
         for _ in range(130)])
    held = [result for _, result in answers if result["status"] == "held"]
    assert len(held) == 119
    assert len({one["slot_start_ms"] for one in held}) == 119
    assert desk.tenant.create()["status"] == "refused"
    for one in held[:3]:
        assert desk.release(one["slot_id"]) == {"status": "released"}
    assert [desk.tenant.create()["status"] for _ in range(4)] == ["created"] * 3 + ["refused"]


def test_allocate_slot_makes_a_ticket(desk):
    held = desk.validate("silver")
    before = now_ms()
    result = desk.allocate(held["slot_id"], "silver", subject="s", payload=b"\x00\xff")
    assert set(result) == {"status", "ticket_id", "slot_id", "slot_start_ms", "deadline_ms"}
    assert result["status"] == "created"
    assert result["slot_id"] == held["slot_id"]
    assert result["slot_start_ms"] == held["slot_start_ms"]
    # Created and deadline count from here.
    level = LEVELS["silver"] * MINUTE_MS
    assert before + level - 1000 <= result["deadline_ms"] <= now_ms() + level + 1000
    ticket = desk.tenant.ticket(result["ticket_id"])
    assert (ticket["subject"], ticket["payload"]) == ("s", b"\x00\xff")
    assert ticket["ticket_type"] == "silver"


def test_allocate_slot_replays_and_is_taken_for_others(desk):
    held = desk.validate()
    request_id = new_id()
    first = desk.allocate(held["slot_id"], request_id=request_id)
    for form in (request_id, id_text(request_id), id_text(request_id).upper()):
        assert is_replay(desk.allocate(held["slot_id"], request_id=form), first)
    assert desk.allocate(held["slot_id"]) == {"status": "taken"}
    assert desk.release(held["slot_id"]) == {"status": "taken"}
    assert desk.tenant.ticket(first["ticket_id"])["state"] == "open"


def test_allocate_slot_is_taken_even_after_a_cancel(desk):
    """A hold yields one ticket."""
    held = desk.validate()
    made = desk.allocate(held["slot_id"])
    desk.tenant.call("cancel_ticket", ticket_id=made["ticket_id"])
    assert desk.allocate(held["slot_id"]) == {"status": "taken"}
    assert desk.release(held["slot_id"]) == {"status": "taken"}


def test_allocate_slot_released(desk):
    held = desk.validate()
    assert desk.release(held["slot_id"]) == {"status": "released"}
    assert desk.release(held["slot_id"]) == {"status": "released"}
    assert desk.allocate(held["slot_id"]) == {"status": "released"}
    assert desk.release(held["slot_id"]) == {"status": "released"}


def test_allocate_slot_expired(desk):
    calm()
    held = desk.validate(hold_ms=1000)
    wait_until(lambda: now_ms() > held["hold_expires_ms"] + 200, 5)
    assert desk.allocate(held["slot_id"]) == {"status": "expired"}
    # The slot is free again at once, and a release of the expired hold is the same as of a live.
    assert desk.tenant.create()["slot_start_ms"] == held["slot_start_ms"]
    assert desk.release(held["slot_id"]) == {"status": "released"}
    assert desk.allocate(held["slot_id"]) == {"status": "expired"}


def test_allocate_slot_of_another_class(desk):
    held = desk.validate("gold")
    with refused("invalid_argument", "ticket_type"):
        desk.allocate(held["slot_id"], "silver")
    assert desk.allocate(held["slot_id"], "gold")["status"] == "created"


def test_allocate_slot_of_another_tenant(desk, other, internal):
    held = desk.validate()
    with refused("not_found"):
        desk.allocate(held["slot_id"], client_id=other.client_id)
    theirs = internal.call("validate_eta", client_id=other.client_id, ticket_type="gold")
    with refused("not_found"):
        desk.allocate(theirs["slot_id"])
    assert internal.call("release_slot", slot_id=theirs["slot_id"])["status"] == "released"
    assert desk.allocate(held["slot_id"])["status"] == "created"


def test_allocate_slot_forged_ids(desk, internal):
    """Each character changed: none is anybody's slot."""
    slot_id = desk.validate()["slot_id"]
    forged = [
        slot_id[:at] + ("A" if was != "A" else "B") + slot_id[at + 1 :]
        for at, was in enumerate(slot_id)
    ]
    allocate = [
        ("allocate_slot", {"client_id": desk.client_id, "ticket_type": "gold",
                           "request_id": new_id(), "slot_id": one}) for one in forged]
    release = [("release_slot", {"slot_id": one}) for one in forged]
    for at, (error, _) in enumerate(internal.ask_all(allocate) + internal.ask_all(release)):
        assert error and error["code"] == "not_found", f"character {at % len(slot_id)}"
    assert desk.allocate(slot_id)["status"] == "created"


@pytest.mark.parametrize("value", ["x", "sl_", "sl_" + "A" * 54, "tk_" + "A" * 39, "sl_ä"])
def test_slot_id_unknown(desk, value):
    with refused("not_found"):
        desk.allocate(value)
    with refused("not_found"):
        desk.release(value)


def test_slot_id_of_create_ticket_names_a_ticket(desk):
    """The reservation of a ticket: never to be released or allocated."""
    made = desk.tenant.create()
    assert desk.release(made["slot_id"]) == {"status": "taken"}
    assert desk.allocate(made["slot_id"]) == {"status": "taken"}
    assert desk.tenant.ticket(made["ticket_id"])["state"] == "open"


def test_hold_that_only_rebooking_frees(desk):
    """The moves commit before the answer, so the database shows them."""
    calm()
    desk.tenant.create_many(119, "bronze")
    held = desk.validate("gold")
    assert held["status"] == "held"
    rows = desk.tenant.sql("select slot_start from tickets where state = 0")
    assert held["slot_start_ms"] not in {int(row[0].timestamp() * 1000) for row in rows}
    assert len(rows) == 119
    made = desk.allocate(held["slot_id"])
    assert made["slot_start_ms"] == held["slot_start_ms"]


def test_validate_allocate_pipelined_pairs(desk, internal):
    """Many pairs at once: each hold one ticket."""
    held = [result for _, result in internal.ask_all(
        [("validate_eta", {"client_id": desk.client_id, "ticket_type": "bronze"})
         for _ in range(60)])]
    answers = internal.ask_all(
        [("allocate_slot", {"client_id": desk.client_id, "ticket_type": "bronze",
                            "request_id": new_id(), "slot_id": one["slot_id"]})
         for one in held for _ in range(3)])
    results = [result for error, result in answers if not error]
    assert len(results) == 180
    statuses = [result["status"] for result in results]
    assert (statuses.count("created"), statuses.count("taken")) == (60, 120)


@pytest.mark.parametrize(
    "field, value",
    [("client_id", None), ("ticket_type", None), ("ticket_type", "platinum"), ("hold_ms", 999),
     ("hold_ms", 300001), ("hold_ms", -1), ("hold_ms", "1000"), ("hold_ms", 1000.0)],
)
def test_validate_eta_bad_argument(desk, field, value):
    with refused("invalid_argument", field):
        desk.validate(**{field: value})


@pytest.mark.parametrize(
    "field, value",
    [("client_id", None), ("ticket_type", None), ("ticket_type", "platinum"), ("slot_id", None),
     ("slot_id", 5), ("slot_id", "x" * 65), ("request_id", None), ("subject", "x" * 201),
     ("payload", b"x" * 8193)],
)
def test_allocate_slot_bad_argument(desk, field, value):
    held = desk.validate()
    params = {"slot_id": held["slot_id"], field: value}
    with refused("invalid_argument", field):
        desk.allocate(**params)
    assert desk.allocate(held["slot_id"])["status"] == "created"


@pytest.mark.parametrize("value", [None, 5, "x" * 65, b"sl_x"])
def test_release_slot_bad_argument(desk, value):
    with refused("invalid_argument", "slot_id"):
        desk.release(value)


def test_unknown_tenant(internal):
    for method, params in (
        ("validate_eta", {"ticket_type": "gold"}),
        ("create_ticket", {"ticket_type": "gold", "request_id": new_id()}),
        ("set_tenant", {"resolvers": 2}),
        ("set_tenant", {"suspended": True}),
        ("get_tenant", {}),
        ("availability", {}),
        ("list_tickets", {}),
    ):
        with refused("not_found"):
            internal.call(method, client_id="cl_AAAAAAAAAAAAAAAA", **params)
