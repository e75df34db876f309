# SPDX-License-Identifier: Apache-2.0
"""The tenant context, on the internal endpoint: set_tenant, get_tenant, list_tenants; suspended."""

import pytest
import zmq
from client import (
    LEVELS, PASSWORD, Client, calm, is_replay, new_id, now_ms, refused,
)
from fleet import wait_until

CONTEXT = {
    "client_id", "name", "email", "sub_domain", "resolvers", "rebooking", "suspended", "classes",
    "limits",
}


@pytest.fixture
def settings(tenant, internal):
    """Changes the settings of `tenant`."""

    def change(**params):
        return internal.call("set_tenant", client_id=tenant.client_id, **params)

    return change


def context(internal, tenant):
    result = internal.call("get_tenant", client_id=tenant.client_id)
    assert result["status"] == "ok"
    return result


# -- get_tenant, list_tenants --------------------------------------------------------------------


def test_get_tenant_of_a_fresh_one(tenant, internal):
    result = context(internal, tenant)
    assert CONTEXT | {"status"} <= set(result)
    assert {key: result[key] for key in CONTEXT} == {
        "client_id": tenant.client_id, "name": tenant.name, "email": tenant.email,
        "sub_domain": tenant.sub_domain, "resolvers": 1, "rebooking": True, "suspended": False,
        "classes": LEVELS, "limits": {},
    }
    assert "password" not in str(result)


def test_get_tenant_follows_set_tenant(tenant, internal, settings):
    """The control database has a copy, which may come a moment later."""
    settings(resolvers=3, rebooking=False, limits={"silver": 600, "bronze": 300})
    wanted = {"resolvers": 3, "rebooking": False, "limits": {"silver": 600, "bronze": 300}}
    wait_until(lambda: wanted.items() <= context(internal, tenant).items(), 5)
    settings(classes={"gold": 120, "day": 1440}, limits={})
    wanted = {"resolvers": 3, "classes": {"gold": 120, "day": 1440}, "limits": {}}
    wait_until(lambda: wanted.items() <= context(internal, tenant).items(), 5)
    settings(suspended=True)
    assert context(internal, tenant)["suspended"] is True


def test_list_tenants_pages(roomy, other, tenant, internal):
    wanted = {roomy.client_id, other.client_id, tenant.client_id}
    for limit in (2, 1000):
        found, cursor = [], None
        while True:
            page = internal.call("list_tenants", limit=limit, cursor=cursor)
            assert page["status"] == "ok"
            assert set(page) <= {"status", "tenants", "cursor"}
            assert len(page["tenants"]) <= limit
            for row in page["tenants"]:
                assert {"client_id", "name", "sub_domain", "resolvers", "suspended"} <= set(row)
            found += [row["client_id"] for row in page["tenants"]]
            cursor = page.get("cursor")
            if cursor is None:
                break
        assert len(found) == len(set(found))
        assert wanted <= set(found)


@pytest.mark.parametrize("field, value", [("limit", 0), ("limit", 1001), ("cursor", 5)])
def test_list_tenants_bad_argument(internal, field, value):
    with refused("invalid_argument", field):
        internal.call("list_tenants", **{field: value})


# -- resolvers -----------------------------------------------------------------------------------


def test_set_tenant_more_resolvers_at_once(tenant, settings):
    calm()
    tenant.create_many(119)
    assert tenant.create()["status"] == "refused"
    assert settings(resolvers=2) == {"status": "ok"}
    assert [one["status"] for one in tenant.create_many(120)] == ["created"] * 119 + ["refused"]


def test_set_tenant_fewer_resolvers_only_where_no_promise_breaks(tenant, internal, settings):
    calm(12)
    settings(resolvers=2)
    made = tenant.create_many(238)
    result = settings(resolvers=1)
    assert set(result) == {"status", "count", "tickets"}
    assert (result["status"], result["count"]) == ("refused", 119)
    assert len(result["tickets"]) == 100
    assert len(set(result["tickets"])) == 100
    assert set(result["tickets"]) <= {one["ticket_id"] for one in made}
    # Nothing has changed.
    assert tenant.call("availability")["classes"]["gold"] == {"free": 0}
    tenant.client.ask_all(
        [("cancel_ticket", {"token": tenant.token, "ticket_id": one["ticket_id"]})
         for one in made[:130]])
    assert settings(resolvers=1) == {"status": "ok"}
    # 108 are left, on one resolver now, each in time.
    rows = tenant.sql(
        "select count(*), count(distinct slot_start), max(lane),"
        " bool_and(slot_start + '1 min' <= deadline) from tickets where state = 0")
    assert rows == [(108, 108, 0, True)]
    assert tenant.call("availability")["classes"]["gold"]["free"] == 11


@pytest.mark.parametrize(
    "field, value",
    [("resolvers", 0), ("resolvers", 4097), ("resolvers", "2"), ("resolvers", 1.0),
     ("rebooking", 1), ("rebooking", "true"), ("suspended", 0), ("suspended", "no"),
     ("classes", {}), ("classes", []), ("classes", {"gold": 1}), ("classes", {"gold": 1441}),
     ("classes", {"": 60}), ("classes", {"x" * 32: 60}), ("classes", {"gold": "120"}),
     ("classes", {f"c{i}": 60 for i in range(9)}), ("classes", {"gold": 2.5}),
     ("limits", {"gold": -1}), ("limits", {"gold": 1001}), ("limits", {"platinum": 500}),
     ("limits", []), ("limits", {"gold": "500"}), ("client_id", None), ("client_id", 5)],
)
def test_set_tenant_bad_argument(other, internal, field, value):
    params = {"client_id": other.client_id, field: value}
    with refused("invalid_argument", field):
        internal.call("set_tenant", **params)


def test_set_tenant_changes_nothing_when_one_part_is_wrong(tenant, internal, settings):
    with refused("invalid_argument", "limits"):
        settings(resolvers=5, limits={"platinum": 500})
    assert tenant.call("availability")["classes"]["gold"]["free"] in (118, 119)
    assert context(internal, tenant)["resolvers"] == 1


def test_set_tenant_refused_or_wrong_does_not_suspend(tenant, internal, settings):
    with refused("invalid_argument", "limits"):
        settings(suspended=True, limits={"platinum": 500})
    assert tenant.create()["status"] == "created"
    assert context(internal, tenant)["suspended"] is False


def test_set_tenant_takes_the_bounds(tenant, settings):
    assert settings(resolvers=4096) == {"status": "ok"}
    assert settings(resolvers=1, rebooking=True) == {"status": "ok"}
    assert settings(classes={f"c{i}": 2 + i for i in range(7)} | {"x" * 31: 1440}) == {
        "status": "ok"}


# -- classes -------------------------------------------------------------------------------------


def test_set_tenant_classes_are_data(tenant, settings):
    calm(10)
    made = tenant.create("gold")
    assert settings(classes={"platinum": 30, "day": 1440}) == {"status": "ok"}
    assert tenant.call("availability")["classes"].keys() == {"platinum", "day"}
    with refused("invalid_argument", "ticket_type"):
        tenant.create("gold")
    before = now_ms()
    day = tenant.create("day")
    assert before - 1000 <= day["deadline_ms"] - 1440 * 60000 <= now_ms() + 1000
    assert len([one for one in tenant.create_many(40, "platinum")
                if one["status"] == "created"]) in (27, 28, 29)
    # Open tickets keep their class name and deadline.
    ticket = tenant.ticket(made["ticket_id"])
    assert (ticket["ticket_type"], ticket["deadline_ms"]) == ("gold", made["deadline_ms"])
    assert tenant.call("cancel_ticket", ticket_id=made["ticket_id"]) == {"status": "cancelled"}


def test_set_tenant_classes_replay_and_conflict_survive_a_change(tenant, settings):
    """A known request_id comes before the check of the class."""
    request_id = new_id()
    made = tenant.create("gold", request_id=request_id)
    settings(classes={"platinum": 30})
    again = tenant.create("gold", request_id=request_id)
    assert (again["ticket_id"], again["replayed"]) == (made["ticket_id"], True)
    with refused("conflict", "ticket_type"):
        tenant.create("platinum", request_id=request_id)


# -- booking limits ------------------------------------------------------------------------------


def lanes(minute, resolvers, shares):
    """How many lanes of the minute the nested shares (urgent to not) allow."""

    def total(at):
        allowed, before = at * resolvers, 1000
        for share in shares:
            allowed = allowed * share // before
            before = share
        return allowed

    return total(minute + 1) - total(minute)


def test_set_tenant_limits_are_nested_shares_of_each_minute(new_tenant, internal):
    tenant = new_tenant(10)
    calm(15)
    internal.call("set_tenant", client_id=tenant.client_id, limits={"silver": 600, "bronze": 305})
    first = now_ms() // 60000 + 1
    counts = {}
    for ticket_type in ("bronze", "silver", "gold"):
        results = tenant.create_many(
            {"bronze": 1500, "silver": 750, "gold": 500}[ticket_type], ticket_type)
        counts[ticket_type] = sum(one["status"] == "created" for one in results)
        refusal = results[-1]
        assert refusal["status"] == "refused"
        assert refusal["reason"] == "limit"  # of gold too: others may not move out of its way
    assert now_ms() // 60000 + 1 == first, "the test was too slow for one minute"
    bronze = {m: lanes(m, 10, (600, 305)) for m in range(first, first + 479)}
    assert counts["bronze"] == sum(bronze.values())
    silver = {m: lanes(m, 10, (600,)) - bronze[m] for m in range(first, first + 239)}
    assert counts["silver"] == sum(silver.values())
    assert counts["gold"] == sum(10 - lanes(m, 10, (600,)) for m in range(first, first + 119))
    per_minute = tenant.sql(
        "select class, extract(epoch from slot_start)::int8 / 60, count(*) from tickets"
        " group by 1, 2")
    for name, minute, count in per_minute:
        if name == "bronze":
            assert count <= bronze[minute]


def test_set_tenant_limit_zero_can_never_fit(tenant, settings):
    settings(limits={"bronze": 0})
    result = tenant.create("bronze")
    assert (result["status"], result["reason"]) == ("refused", "limit")
    assert "earliest_ms" not in result
    assert [one["ticket_type"] for one in result["alternatives"]] == ["gold", "silver"]
    assert tenant.call("availability")["classes"]["bronze"] == {"free": 0}
    assert settings(limits={}) == {"status": "ok"}
    assert tenant.create("bronze")["status"] == "created"


# -- rebooking -----------------------------------------------------------------------------------


def test_set_tenant_rebooking_off_and_on(tenant, settings):
    calm(10)
    settings(rebooking=False)
    tenant.create_many(119, "bronze")
    result = tenant.create("gold")
    assert (result["status"], result["reason"]) == ("refused", "no_slot")
    assert tenant.call("availability")["classes"]["gold"] == {"free": 0}
    settings(rebooking=True)
    assert tenant.create("gold")["status"] == "created"


# -- suspended -----------------------------------------------------------------------------------


def test_suspended_refuses_what_makes_promises_and_nothing_else(tenant, internal, settings):
    calm()
    request_id = new_id()
    made = [tenant.create() for _ in range(2)]
    replayed = tenant.create(request_id=request_id)
    held = [
        internal.call("validate_eta", client_id=tenant.client_id, ticket_type="gold")["slot_id"]
        for _ in range(2)]
    assert settings(suspended=True) == {"status": "ok"}
    with refused("suspended"):
        tenant.create()
    with refused("suspended"):
        internal.call("create_ticket", client_id=tenant.client_id, ticket_type="gold",
                      request_id=new_id())
    with refused("suspended"):
        internal.call("validate_eta", client_id=tenant.client_id, ticket_type="gold")
    with refused("suspended"):
        internal.call("allocate_slot", client_id=tenant.client_id, ticket_type="gold",
                      slot_id=held[0], request_id=new_id())
    # Known ids and wrong classes come first.
    assert is_replay(tenant.create(request_id=request_id), replayed)
    with refused("conflict", "subject"):
        tenant.create(request_id=request_id, subject="other")
    with refused("invalid_argument", "ticket_type"):
        tenant.create("platinum")
    # All the rest works.
    assert tenant.call("availability")["status"] == "ok"
    assert tenant.ticket(made[0]["ticket_id"])["state"] == "open"
    assert len(tenant.tickets()) == 3
    assert tenant.call("cancel_ticket", ticket_id=made[0]["ticket_id"])["status"] == "cancelled"
    assert tenant.call("resolve_ticket", ticket_id=made[1]["ticket_id"])["met"] is True
    assert internal.call("release_slot", slot_id=held[1]) == {"status": "released"}
    assert settings(resolvers=2) == {"status": "ok"}
    assert tenant.call("change_password", password=PASSWORD, new_password="a new password")
    assert tenant.login("a new password")["status"] == "ok"
    tenant.token = tenant.login("a new password")["token"]
    assert settings(suspended=False) == {"status": "ok"}
    assert tenant.create()["status"] == "created"
    assert internal.call("allocate_slot", client_id=tenant.client_id, ticket_type="gold",
                         slot_id=held[0], request_id=new_id())["status"] == "created"


def test_suspended_with_other_settings_in_one_call(tenant, internal, settings):
    assert settings(suspended=True, resolvers=2) == {"status": "ok"}
    with refused("suspended"):
        tenant.create()
    assert settings(suspended=False, resolvers=3, rebooking=False) == {"status": "ok"}
    calm()
    assert tenant.call("availability")["classes"]["gold"]["free"] == 3 * 119


def test_suspended_spares_the_others(tenant, roomy, settings):
    settings(suspended=True)
    assert roomy.create()["status"] == "created"


# -- the internal endpoint -----------------------------------------------------------------------


def test_internal_ignores_tokens(roomy, tenant, internal):
    """It serves every method."""
    client_id = roomy.client_id
    for token in (None, "nonsense", 5, tenant.token):
        made = internal.call("create_ticket", token=token, client_id=client_id,
                             ticket_type="gold", request_id=new_id())
        assert made["status"] == "created"
        ticket_id = made["ticket_id"]
        assert internal.call("get_ticket", token=token, ticket_id=ticket_id)["status"] == "ok"
        assert internal.call("cancel_ticket", token=token, ticket_id=ticket_id)["status"]
        assert internal.call("availability", token=token, client_id=client_id)["status"] == "ok"
        assert internal.call("list_tickets", token=token, client_id=client_id, limit=1)
        assert internal.call("ping", token=token)["status"] == "ok"
    assert internal.call("login", client_id=client_id, password=PASSWORD)["status"] == "ok"


def test_internal_replays_what_public_asked(roomy, internal):
    """One tenant, one set of request ids."""
    request_id = new_id()
    made = roomy.create(request_id=request_id, subject="s")
    again = internal.call("create_ticket", client_id=roomy.client_id, request_id=request_id,
                          ticket_type="gold", subject="s")
    assert is_replay(again, made)


def curve_keys(fleet):
    server = open(f"{fleet.keys}/internal.pub").read().split()[0]
    public, secret = open(f"{fleet.keys}/internal-client.key").read().split()
    return server, public, secret


def test_internal_without_a_listed_key_gets_nothing(fleet):
    server, public, secret = curve_keys(fleet)
    stranger = [key.decode() for key in zmq.curve_keypair()]
    another = [key.decode() for key in zmq.curve_keypair()]
    with Client(fleet.internal, curve=(server, public, secret)) as known, Client(
        fleet.internal) as plain, Client(
        fleet.internal, curve=(server, *stranger)) as unlisted, Client(
        fleet.internal, curve=(another[0], public, secret)
    ) as wrong_server:
        strangers = (plain, unlisted, wrong_server)
        for client in strangers:
            client.send("ping")
        assert known.call("ping")["status"] == "ok"
        for client in strangers:
            assert client.silent(0.7)


def test_internal_methods_on_the_public_endpoint(roomy):
    for method, params in (
        ("validate_eta", {"client_id": roomy.client_id, "ticket_type": "gold"}),
        ("allocate_slot", {"client_id": roomy.client_id, "ticket_type": "gold",
                           "slot_id": "sl_x", "request_id": new_id()}),
        ("release_slot", {"slot_id": "sl_x"}),
        ("set_tenant", {"client_id": roomy.client_id, "resolvers": 4096}),
        ("get_tenant", {"client_id": roomy.client_id}),
        ("list_tenants", {}),
    ):
        with refused("permission_denied"):
            roomy.call(method, **params)
        with refused("permission_denied"):
            roomy.client.call(method)
