# SPDX-License-Identifier: Apache-2.0
"""Tickets: the promise, the refusal that says more than no, and a ticket's life after it."""

import msgpack
import pytest
from client import (
    LEVELS, MINUTE_MS, calm, new_id, next_minute_ms, now_ms, pack, refused,
    ticket_number,
)

pytestmark = pytest.mark.usefixtures("early")

CREATED = {"status", "ticket_id", "slot_id", "slot_start_ms", "deadline_ms"}
TICKET = {
    "ticket_id", "ticket_type", "state", "slot_start_ms", "deadline_ms", "created_ms", "breached",
    "at_risk",
}


def check_created(result, ticket_type, before, after):
    assert set(result) - {"replayed"} == CREATED
    assert result["status"] == "created"
    assert result["ticket_id"].startswith("tk_") and len(result["ticket_id"]) <= 64
    assert result["slot_id"].startswith("sl_") and len(result["slot_id"]) <= 64
    assert result["slot_start_ms"] % MINUTE_MS == 0
    level = LEVELS[ticket_type] * MINUTE_MS
    # 1 s each way: tenant time is the database's, slewed
    assert before + level - 1000 <= result["deadline_ms"] <= after + level + 1000
    assert result["slot_start_ms"] + MINUTE_MS <= result["deadline_ms"]
    assert result["slot_start_ms"] >= before + 1000


# -- create_ticket -------------------------------------------------------------------------------


@pytest.mark.parametrize("ticket_type", LEVELS)
def test_create_ticket_promises(roomy, ticket_type):
    before = now_ms()
    result = roomy.create(ticket_type, subject="Drucker brennt 🔥", payload=b"\x00\xff")
    check_created(result, ticket_type, before, now_ms())
    assert "replayed" not in result


def test_create_ticket_takes_the_bounds(roomy):
    for extra in ({"subject": "x" * 200}, {"payload": b"\x00" * 8192}, {"subject": ""},
                  {"payload": b""}, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}):
        ticket_id = roomy.create(**extra)["ticket_id"]
        ticket = roomy.ticket(ticket_id)
        for key, value in extra.items():
            if key != "traceparent":
                assert ticket[key] == value


def test_create_ticket_slots_follow_each_other(tenant):
    calm()
    starts = [tenant.create()["slot_start_ms"] for _ in range(5)]
    assert starts == [starts[0] + i * MINUTE_MS for i in range(5)]
    assert starts[0] == next_minute_ms(now_ms())


@pytest.mark.parametrize("ticket_type, count", [("gold", 119), ("silver", 239), ("bronze", 479)])
def test_fresh_tenant_admits_exactly(new_tenant, ticket_type, count):
    tenant = new_tenant()
    calm()
    minute = next_minute_ms(now_ms())
    results = [
        result for error, result in tenant.client.ask_all(
            [("create_ticket", tenant.with_defaults("create_ticket", {"ticket_type": ticket_type}))
             for _ in range(count + 30)])
        if not error
    ]
    assert next_minute_ms(now_ms()) == minute, "the test was too slow for one minute"
    created = [result for result in results if result["status"] == "created"]
    assert len(created) == count
    assert len(results) == count + 30
    assert sorted(result["slot_start_ms"] for result in created) == [
        minute + i * MINUTE_MS for i in range(count)]
    # The database says the same, and the level is kept by each.
    assert tenant.sql(
        "select count(*), count(distinct slot_start), bool_and(slot_start + '1 min' <= deadline)"
        " from tickets where state = 0") == [(count, count, True)]


@pytest.mark.parametrize("ticket_type, count", [("gold", 119), ("silver", 239), ("bronze", 479)])
def test_fresh_tenant_with_resolvers_admits_as_many_times_more(new_tenant, ticket_type, count):
    resolvers = 3
    tenant = new_tenant(resolvers)
    calm(12)
    minute = next_minute_ms(now_ms())
    requests = [
        ("create_ticket", tenant.with_defaults("create_ticket", {"ticket_type": ticket_type}))
        for _ in range(resolvers * count + 20)
    ]
    results = [result for error, result in tenant.client.ask_all(requests) if not error]
    assert next_minute_ms(now_ms()) == minute, "the test was too slow for one minute"
    assert len(results) == len(requests)
    created = [result for result in results if result["status"] == "created"]
    assert len(created) == resolvers * count
    assert tenant.sql(
        "select count(*), count(distinct (slot_start, lane)), max(lane) from tickets"
    ) == [(resolvers * count, resolvers * count, resolvers - 1)]


def test_refusal_says_when_and_what_instead(tenant):
    calm()
    tenant.create_many(119)
    minute = next_minute_ms(now_ms())
    before = now_ms()
    result = tenant.create()
    assert set(result) == {"status", "reason", "earliest_ms", "alternatives"}
    assert (result["status"], result["reason"]) == ("refused", "no_slot")
    # The next minute, after its dispatch, has room at the end of the two hours.
    assert result["earliest_ms"] == minute
    assert [one["ticket_type"] for one in result["alternatives"]] == ["silver", "bronze"]
    for one in result["alternatives"]:
        assert set(one) == {"ticket_type", "slot_start_ms", "deadline_ms"}
        assert one["slot_start_ms"] == minute + 119 * MINUTE_MS
        level = LEVELS[one["ticket_type"]] * MINUTE_MS
        assert before + level - 1000 <= one["deadline_ms"] <= now_ms() + level + 1000
    # What it offers it also gives.
    offered = result["alternatives"][0]
    taken = tenant.create("silver")
    assert taken["slot_start_ms"] == offered["slot_start_ms"]


def test_refusal_without_alternatives(tenant):
    calm(10)
    tenant.create_many(479, "bronze")
    for ticket_type in LEVELS:
        result = tenant.create(ticket_type)
        assert result["status"] == "refused"
        assert result["alternatives"] == []
        assert result["reason"] == "no_slot"


def test_rebooking_keeps_every_promise(tenant):
    """Bronze sits where gold has to go: it moves, later, and within its deadline."""
    calm()
    bronze = tenant.create_many(119, "bronze")
    gold = tenant.create("gold")
    assert gold["status"] == "created"
    assert gold["slot_start_ms"] + MINUTE_MS <= gold["deadline_ms"]
    now = {row["ticket_id"]: row for row in tenant.tickets(limit=1000)}
    moved = [one for one in bronze
             if now[one["ticket_id"]]["slot_start_ms"] != one["slot_start_ms"]]
    assert 1 <= len(moved) <= 16
    for one in moved:
        row = now[one["ticket_id"]]
        assert row["slot_start_ms"] > one["slot_start_ms"]
    for one in [*bronze, gold]:
        row = now[one["ticket_id"]]
        assert row["deadline_ms"] == one["deadline_ms"]
        assert row["slot_start_ms"] + MINUTE_MS <= row["deadline_ms"]
    assert len({row["slot_start_ms"] for row in now.values()}) == 120


# -- availability --------------------------------------------------------------------------------


def test_availability_of_a_fresh_tenant(tenant):
    calm()
    result = tenant.call("availability")
    minute = next_minute_ms(now_ms())
    assert set(result) == {"status", "classes"}
    assert result == {
        "status": "ok",
        "classes": {
            name: {"free": level - 1, "next_free_ms": minute} for name, level in LEVELS.items()},
    }


def test_availability_counts_what_would_be_admitted(tenant):
    calm()
    tenant.create_many(100)
    classes = tenant.call("availability")["classes"]
    assert [classes[name]["free"] for name in LEVELS] == [19, 139, 379]
    minute = next_minute_ms(now_ms())
    assert classes["gold"]["next_free_ms"] == minute + 100 * MINUTE_MS
    results = [tenant.create()["status"] for _ in range(20)]
    assert results == ["created"] * 19 + ["refused"]
    classes = tenant.call("availability")["classes"]
    assert classes["gold"] == {"free": 0}
    assert classes["silver"] == {"free": 120, "next_free_ms": minute + 119 * MINUTE_MS}


# -- get_ticket, list_tickets --------------------------------------------------------------------


def test_get_ticket_shows_what_was_promised(roomy):
    before = now_ms()
    made = roomy.create("silver", subject="Drucker", payload=b"\x00\xff\x80")
    result = roomy.call("get_ticket", ticket_id=made["ticket_id"])
    assert set(result) == {"status", "ticket"}
    assert result["status"] == "ok"
    ticket = result["ticket"]
    assert set(ticket) == TICKET | {"subject", "payload"}
    assert ticket["ticket_id"] == made["ticket_id"]
    assert (ticket["ticket_type"], ticket["state"]) == ("silver", "open")
    assert (ticket["breached"], ticket["at_risk"]) == (False, False)
    assert (ticket["subject"], ticket["payload"]) == ("Drucker", b"\x00\xff\x80")
    assert ticket["slot_start_ms"] == made["slot_start_ms"]
    assert ticket["deadline_ms"] == made["deadline_ms"]
    assert ticket["deadline_ms"] == ticket["created_ms"] + 240 * MINUTE_MS
    assert before - 1000 <= ticket["created_ms"] <= now_ms() + 1000


def test_get_ticket_absent_keys_are_absent(roomy):
    made = roomy.create(subject=None)
    assert set(roomy.ticket(made["ticket_id"])) == TICKET


def test_get_ticket_after_cancel_and_resolve(roomy):
    before = now_ms()
    cancelled, resolved = roomy.create(), roomy.create()
    roomy.call("cancel_ticket", ticket_id=cancelled["ticket_id"])
    roomy.call("resolve_ticket", ticket_id=resolved["ticket_id"])
    ticket = roomy.ticket(cancelled["ticket_id"])
    assert set(ticket) == TICKET | {"cancelled_ms"}
    assert ticket["state"] == "cancelled"
    assert before - 1000 <= ticket["cancelled_ms"] <= now_ms() + 1000
    ticket = roomy.ticket(resolved["ticket_id"])
    assert set(ticket) == TICKET | {"resolved_ms"}
    assert ticket["state"] == "resolved"
    assert before - 1000 <= ticket["resolved_ms"] <= now_ms() + 1000


@pytest.mark.parametrize("method", ["get_ticket", "cancel_ticket", "resolve_ticket"])
@pytest.mark.parametrize("value", [None, 5, b"tk_x", "x" * 65, True])
def test_ticket_id_of_another_type(roomy, method, value):
    with refused("invalid_argument", "ticket_id"):
        roomy.call(method, ticket_id=value)


@pytest.mark.parametrize("method", ["get_ticket", "cancel_ticket", "resolve_ticket"])
def test_ticket_id_unknown(roomy, method):
    made = roomy.create()
    for value in ("x", "tk_", "tk_AAAA", "tk_" + "A" * 39, made["slot_id"], roomy.client_id,
                  "tk_" + "ä" * 20, made["ticket_id"] + "A", made["ticket_id"][:-1],
                  made["ticket_id"].upper(), " " + made["ticket_id"]):
        with refused("not_found"):
            roomy.call(method, ticket_id=value)


@pytest.fixture(scope="module")
def library(fleet):
    """40 tickets in all states but one: every fourth cancelled, every fourth resolved."""
    from client import Tenant

    one = Tenant(fleet, resolvers=4)
    calm()  # each is cancelled or resolved before a minute comes
    one.made = one.create_many(40, "bronze", payload=b"p" * 100, subject="s")
    one.made.sort(key=lambda made: ticket_number(made["ticket_id"]))
    for at, made in enumerate(one.made):
        if at % 4 == 1:
            one.call("cancel_ticket", ticket_id=made["ticket_id"])
        if at % 4 == 2:
            one.call("resolve_ticket", ticket_id=made["ticket_id"])
    yield one
    one.close()


def test_list_tickets_is_in_order_and_without_payload(library):
    result = library.call("list_tickets")
    assert set(result) == {"status", "tickets"}
    assert result["status"] == "ok"
    assert [row["ticket_id"] for row in result["tickets"]] == [
        made["ticket_id"] for made in library.made]
    for at, row in enumerate(result["tickets"]):
        extra = {1: {"cancelled_ms"}, 2: {"resolved_ms"}}.get(at % 4, set())
        assert set(row) - {"dispatched_ms"} == TICKET | {"subject"} | extra
        whole = library.ticket(row["ticket_id"])
        assert whole.pop("payload") == b"p" * 100
        if row["state"] != "open":
            assert whole == row


@pytest.mark.parametrize("limit", [1, 7, 20, 39, 40, 41, 1000])
def test_list_tickets_pages(library, limit):
    found, cursor, pages = [], None, 0
    while True:
        page = library.call("list_tickets", limit=limit, cursor=cursor)
        assert len(page["tickets"]) <= limit
        found += [row["ticket_id"] for row in page["tickets"]]
        pages += 1
        cursor = page.get("cursor")
        if cursor is None:
            break
        assert page["tickets"], "a cursor only if there is more, so no page is empty"
    assert found == [made["ticket_id"] for made in library.made]
    assert pages == -(-40 // limit)


def test_list_tickets_default_limit_is_100(roomy):
    roomy.create_many(101, "bronze")
    page = roomy.call("list_tickets")
    assert len(page["tickets"]) == 100
    assert "cursor" in page


@pytest.mark.parametrize("state, at", [("cancelled", 1), ("resolved", 2)])
def test_list_tickets_by_state(library, state, at):
    wanted = [made["ticket_id"] for made in library.made[at::4]]
    assert [row["ticket_id"] for row in library.tickets(state=state)] == wanted
    assert [row["ticket_id"] for row in library.tickets(state=state, limit=3)] == wanted


def test_list_tickets_open_and_dispatched_are_the_rest(library):
    """Which of the two may change while the test runs: a minute comes."""
    rest = {made["ticket_id"] for at, made in enumerate(library.made) if at % 4 in (0, 3)}
    calm(3)
    found = {
        state: {row["ticket_id"] for row in library.tickets(state=state)}
        for state in ("open", "dispatched")
    }
    assert found["open"] | found["dispatched"] == rest
    assert not found["open"] & found["dispatched"]


def test_list_tickets_of_nobody(tenant):
    assert tenant.call("list_tickets") == {"status": "ok", "tickets": []}
    assert tenant.call("list_tickets", state="dispatched", limit=1000) == {
        "status": "ok", "tickets": []}


def test_list_tickets_page_ends_at_256_kib(new_tenant):
    tenant = new_tenant(8)
    made = tenant.create_many(1000, "bronze", subject="s" * 200)
    found, cursor, pages = [], None, 0
    while True:
        page = tenant.call("list_tickets", limit=1000, cursor=cursor)
        assert len(pack(page["tickets"])) <= 262144
        found += [row["ticket_id"] for row in page["tickets"]]
        pages += 1
        cursor = page.get("cursor")
        if cursor is None:
            break
    assert pages > 1, "1000 tickets of 400 bytes do not fit one page"
    assert sorted(found) == sorted(one["ticket_id"] for one in made)
    assert len(found) == 1000


@pytest.mark.parametrize(
    "field, value",
    [("limit", 0), ("limit", 1001), ("limit", -1), ("limit", "10"), ("limit", 1.5),
     ("state", "closed"), ("state", ""), ("state", 0), ("cursor", "x"), ("cursor", 5),
     ("cursor", ""), ("cursor", "-1"), ("cursor", "9" * 30), ("cursor", "1" * 65)],
)
def test_list_tickets_bad_argument(library, field, value):
    with refused("invalid_argument", field):
        library.call("list_tickets", **{field: value})


# -- cancel, resolve -----------------------------------------------------------------------------


def test_cancel_open_again_and_resolve_after_it(roomy):
    made = roomy.create()
    for _ in range(3):
        assert roomy.call("cancel_ticket", ticket_id=made["ticket_id"]) == {"status": "cancelled"}
    with refused("conflict"):
        roomy.call("resolve_ticket", ticket_id=made["ticket_id"])
    assert roomy.call("cancel_ticket", ticket_id=made["ticket_id"]) == {"status": "cancelled"}


def test_resolve_open_again_and_cancel_after_it(roomy):
    made = roomy.create()
    for _ in range(3):
        assert roomy.call("resolve_ticket", ticket_id=made["ticket_id"]) == {
            "status": "resolved", "met": True}
    assert roomy.call("cancel_ticket", ticket_id=made["ticket_id"]) == {"status": "too_late"}
    assert roomy.call("resolve_ticket", ticket_id=made["ticket_id"])["met"] is True


@pytest.mark.parametrize("method", ["cancel_ticket", "resolve_ticket"])
def test_a_freed_slot_is_free_at_once(tenant, method):
    calm()
    made = tenant.create_many(119)
    assert tenant.create()["status"] == "refused"
    tenant.call(method, ticket_id=made[60]["ticket_id"])
    again = tenant.create()
    assert again["status"] == "created"
    assert again["slot_start_ms"] == made[60]["slot_start_ms"]
    assert again["ticket_id"] != made[60]["ticket_id"]
    assert tenant.create()["status"] == "refused"


def test_cancel_and_create_in_one_message(tenant):
    """Pipelined, both in one group: whatever order, never two tickets in a slot."""
    calm()
    made = tenant.create_many(119)
    requests = []
    for one in made:
        requests.append(("cancel_ticket", {"token": tenant.token, "ticket_id": one["ticket_id"]}))
        requests.append(("create_ticket", tenant.with_defaults("create_ticket", {})))
    answers = tenant.client.ask_all(requests)
    assert all(not error for error, _ in answers)
    assert [result["status"] for _, result in answers[::2]] == ["cancelled"] * 119
    created = [result for _, result in answers[1::2] if result["status"] == "created"]
    assert tenant.sql(
        "select count(*), count(distinct slot_start) from tickets where state = 0"
    ) == [(len(created), len(created))]


def test_create_and_cancel_pipelined_on_one_connection(tenant):
    """A cancel may follow the very answer, while a next group is already under way."""
    calm()
    made = tenant.create_many(50, "bronze")
    answers = tenant.client.ask_all(
        [(method, {"token": tenant.token, "ticket_id": one["ticket_id"]})
         for one in made for method in ("cancel_ticket", "get_ticket", "cancel_ticket")])
    for at in range(0, len(answers), 3):
        assert answers[at] == (None, {"status": "cancelled"})
        assert answers[at + 1][1]["ticket"]["state"] in ("open", "cancelled")
        assert answers[at + 2] == (None, {"status": "cancelled"})


def test_golden_answers_unpack_as_they_come(roomy):
    """The bytes of an answer are what an independent library packs from the same values."""
    msgid, frame = roomy.client.frame("availability", {
        "token": roomy.token, "client_id": roomy.client_id})
    roomy.client.send_frames([frame])
    assert roomy.client.socket.poll(5000)
    raw = roomy.client.socket.recv_multipart()[1]
    answer = msgpack.unpackb(raw, raw=False)
    roomy.client.open.discard(msgid)
    assert pack(answer) == raw


@pytest.mark.parametrize(
    "field, value",
    [("subject", "x" * 201), ("subject", "ä" * 101), ("subject", b"bytes"), ("subject", 5),
     ("payload", b"x" * 8193), ("payload", "text"), ("payload", [1]),
     ("ticket_type", None), ("ticket_type", ""), ("ticket_type", 5), ("ticket_type", "platinum"),
     ("ticket_type", "Gold"), ("ticket_type", "gold "), ("ticket_type", "x" * 32),
     ("request_id", None), ("request_id", b""), ("request_id", "gold"),
     ("request_id", "0190a5d3-1c2b-7def-8123-456789abcdeg"),
     ("request_id", "0190a5d3_1c2b_7def_8123_456789abcdef"),
     ("budget_ms", 0), ("budget_ms", 60001), ("budget_ms", 1.5), ("budget_ms", [5]),
     ("client_id", None), ("traceparent", 5), ("traceparent", "x" * 65)],
)
def test_create_ticket_bad_argument(roomy, field, value):
    params = {"request_id": new_id(), field: value}
    with refused("invalid_argument", field):
        roomy.call("create_ticket", **params)
