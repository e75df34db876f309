# SPDX-License-Identifier: Apache-2.0
"""Accounts and sessions: create_account, login, logout, change_password, tokens, the quota."""

import os
import re
import time
import uuid

import pytest
from client import (
    PASSWORD, Client, id_text, make_token, new_id, now_ms, own_source, refused,
    token_seed,
)
from fleet import wait_until

pytestmark = pytest.mark.usefixtures("early")


def account(**changes):
    params = {
        "request_id": new_id(),
        "name": "Größe & Söhne 株式会社",
        "email": f"ops@{uuid.uuid4().hex}.example",
        "password": PASSWORD,
        "budget_ms": 30000,
    }
    params.update(changes)
    return params


# -- ping ----------------------------------------------------------------------------------------


def test_ping_says_who_answers(public):
    result = public.call("ping")
    assert set(result) == {"status", "node", "version"}
    assert result["status"] == "ok"
    assert result["node"] == "broker-0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", result["version"])


def test_ping_needs_no_token_and_minds_no_bad_one(public):
    assert public.call("ping", token="nonsense")["status"] == "ok"


# -- create_account ------------------------------------------------------------------------------


def test_create_account_answers_client_id_and_sub_domain(public):
    result = public.patient("create_account", **account())
    assert set(result) == {"status", "client_id", "sub_domain"}
    assert result["status"] == "created"
    assert re.fullmatch(r"cl_[A-Za-z0-9_-]{1,61}", result["client_id"])
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", result["sub_domain"])


def test_create_account_the_next_request_works(public):
    made = public.patient("create_account", **account())
    session = public.call("login", client_id=made["client_id"], password=PASSWORD)
    assert session["sub_domain"] == made["sub_domain"]
    assert public.call(
        "create_ticket", token=session["token"], client_id=made["client_id"], request_id=new_id(),
        ticket_type="gold",
    )["status"] == "created"


def test_create_account_same_names_get_different_sub_domains(public):
    one, two = (public.patient("create_account", **account(name="Same Name")) for _ in range(2))
    assert one["sub_domain"] != two["sub_domain"]
    assert one["client_id"] != two["client_id"]


def test_create_account_replays_under_both_forms_of_the_id(public):
    params = account()
    first = public.patient("create_account", **params)
    text = id_text(params["request_id"])
    for form in (params["request_id"], text, text.upper()):
        again = public.patient("create_account", **{**params, "request_id": form})
        assert again == {**first, "replayed": True}


def test_create_account_replay_does_not_compare_the_password(public):
    """Compared are name, email and resolvers."""
    params = account()
    first = public.patient("create_account", **params)
    again = public.patient("create_account", **{**params, "password": "another password"})
    assert again == {**first, "replayed": True}
    assert public.call("login", client_id=first["client_id"], password=PASSWORD)["status"] == "ok"


@pytest.mark.parametrize(
    "field, value",
    [("name", "Other"), ("email", "other@conflict.example"), ("resolvers", 2)],
)
def test_create_account_conflict_names_the_field(public, field, value):
    params = account()
    public.patient("create_account", **params)
    with refused("conflict", field):
        public.patient("create_account", **{**params, field: value})


def test_create_account_resolvers_default_is_one_for_the_comparison(public):
    params = account()
    first = public.patient("create_account", **params)
    assert public.patient("create_account", **{**params, "resolvers": 1}) == {
        **first, "replayed": True}
    assert public.patient("create_account", **{**params, "resolvers": None}) == {
        **first, "replayed": True}


def test_create_account_one_email_one_account(public):
    params = account()
    public.patient("create_account", **params)
    with refused("already_exists"):
        public.patient("create_account", **{**params, "request_id": new_id()})


def test_create_account_in_flight_twice_is_one_account(public):
    params = account()
    answers = public.ask_all([("create_account", params)] * 5)
    results = [result for error, result in answers if not error]
    assert {error["code"] for error, _ in answers if error} <= {"unavailable", "overloaded"}
    results.append(public.patient("create_account", **params))
    assert len({result["client_id"] for result in results}) == 1


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", ""), ("name", "x" * 101), ("name", 5), ("name", b"bytes"),
        ("email", ""), ("email", "no-at-sign"), ("email", "a@b@c.example"), ("email", "@x.example"),
        ("email", "x" * 250 + "@x.example"), ("email", 1), ("email", "two words@x.example"),
        ("password", "x" * 9), ("password", "x" * 129), ("password", "ä" * 9), ("password", True),
        ("resolvers", 0), ("resolvers", 65), ("resolvers", -1), ("resolvers", "1"),
        ("resolvers", 1.0), ("resolvers", 2**40),
        ("request_id", b"x" * 15), ("request_id", b"x" * 17), ("request_id", "x" * 36),
        ("request_id", 1), ("request_id", ""), ("request_id", "0190a5d31c2b7def8123456789abcdef"),
        ("budget_ms", 0), ("budget_ms", 60001), ("budget_ms", -1), ("budget_ms", "5"),
        ("name", None), ("email", None), ("password", None), ("request_id", None),
    ],
)
def test_create_account_bad_argument_names_the_field(public, field, value):
    with refused("invalid_argument", field):
        public.patient("create_account", **account(**{field: value}))


def test_create_account_takes_the_bounds(public):
    for params in (
        account(name="x", resolvers=1),
        account(name="株" * 100, resolvers=64, password="ä" * 128),
        account(password="x" * 10, budget_ms=60000),
    ):
        made = public.patient("create_account", **params)
        assert public.call("login", client_id=made["client_id"], password=params["password"])


# -- login ---------------------------------------------------------------------------------------


def test_login_answers_a_token_that_expires(tenant):
    before = now_ms()
    result = tenant.login()
    assert set(result) == {"status", "sub_domain", "token", "expires_ms"}
    assert result["status"] == "ok"
    assert result["sub_domain"] == tenant.sub_domain
    assert result["token"].startswith("v4.public.")
    # 15 min by default, in whole seconds
    assert before + 895_000 <= result["expires_ms"] <= now_ms() + 905_000


def test_login_wrong_password_and_unknown_account_answer_the_same(fleet, roomy, public):
    def answer(client_id, password):
        error, _ = public.ask("login", client_id=client_id, password=password)
        return error

    wrong = answer(roomy.client_id, "wrong password")
    assert wrong["code"] == "unauthenticated"
    unknown = roomy.client_id[:-1] + ("A" if roomy.client_id[-1] != "A" else "B")
    for client_id in (unknown, "cl_AAAAAAAAAAAAAAAA", "cl_x", "x", "tk_" + "A" * 39):
        assert answer(client_id, PASSWORD) == wrong
    for password in ("", "x", "x" * 5000, PASSWORD + " ", PASSWORD.upper()):
        assert answer(roomy.client_id, password) == wrong


@pytest.mark.parametrize(
    "field, value",
    [("client_id", None), ("client_id", 5), ("client_id", "x" * 65), ("password", None),
     ("password", 5), ("password", b"bytes")],
)
def test_login_bad_argument_names_the_field(public, roomy, field, value):
    params = {"client_id": roomy.client_id, "password": PASSWORD, field: value}
    with refused("invalid_argument", field):
        public.call("login", **params)


# -- logout --------------------------------------------------------------------------------------


def test_logout_kills_the_presented_token_and_only_it(tenant):
    second = tenant.login()["token"]
    assert tenant.call("logout") == {"status": "ok"}
    with refused("unauthenticated"):
        tenant.call("availability")
    with refused("unauthenticated"):
        tenant.call("create_ticket")
    with refused("unauthenticated"):
        tenant.call("logout")
    assert tenant.call("availability", token=second)["status"] == "ok"
    third = tenant.login()["token"]
    assert tenant.call("availability", token=third)["status"] == "ok"
    assert tenant.call("availability", token=second)["status"] == "ok"


def test_logout_pipelined_behind_it_nothing_gets_through(tenant):
    """What was sent after the answer of logout is dead, on another connection too."""
    with Client(tenant.fleet.public) as another:
        assert another.call("availability", token=tenant.token, client_id=tenant.client_id)
        tenant.call("logout")
        error, _ = another.ask("availability", token=tenant.token, client_id=tenant.client_id)
    assert error["code"] == "unauthenticated"


# -- change_password -----------------------------------------------------------------------------


def test_change_password_kills_all_tokens(tenant):
    second = tenant.login()["token"]
    assert tenant.call(
        "change_password", password=PASSWORD, new_password="a new password") == {"status": "ok"}
    for token in (tenant.token, second):
        with refused("unauthenticated"):
            tenant.call("availability", token=token)
    with refused("unauthenticated"):
        tenant.login(PASSWORD)
    token = tenant.login("a new password")["token"]
    assert tenant.call("availability", token=token)["status"] == "ok"


def test_change_password_wants_the_old_one(tenant):
    with refused("unauthenticated"):
        tenant.call("change_password", password="wrong password", new_password="a new password")
    assert tenant.call("availability")["status"] == "ok"
    assert tenant.login()["status"] == "ok"


@pytest.mark.parametrize("value", ["x" * 9, "x" * 129, 5, None, b"bytes as password"])
def test_change_password_checks_the_new_one(roomy, value):
    with refused("invalid_argument", "new_password"):
        roomy.call("change_password", password=PASSWORD, new_password=value)


# -- tokens --------------------------------------------------------------------------------------


def test_token_made_with_the_fleets_seed_is_good(fleet, roomy):
    """Shows that the tokens below fail for the one reason each of them is made for."""
    kid, seed = token_seed(fleet.keys)
    now = int(time.time())
    good = make_token(roomy.client_id, kid, seed, now, now + 60)
    assert roomy.call("availability", token=good)["status"] == "ok"


def bad_tokens(keys, client_id):
    kid, seed = token_seed(keys)
    now = int(time.time())
    good = make_token(client_id, kid, seed, now, now + 60)
    body, footer = good.rpartition(".")[::2]
    return {
        "expired": make_token(client_id, kid, seed, now - 900, now - 1),
        "expired long ago": make_token(client_id, kid, seed, 0, 1),
        "other seed": make_token(client_id, kid, os.urandom(32), now, now + 60),
        "other kid": make_token(client_id, kid + 1, seed, now, now + 60),
        "no footer": body,
        "empty footer": body + ".",
        "v4.local": good.replace("v4.public", "v4.local"),
        "v3": good.replace("v4.", "v3."),
        "padded": good + "=",
        "trailing": good + "A",
        "cut": good[:-5],
        "twice": good + good,
        "text": "nonsense",
        "long": "v4.public." + "A" * 2000,
        "only the header": "v4.public.",
    }


BAD_TOKENS = [
    "expired", "expired long ago", "other seed", "other kid", "no footer", "empty footer",
    "v4.local", "v3", "padded", "trailing", "cut", "twice", "text", "long", "only the header",
]


@pytest.mark.parametrize("which", BAD_TOKENS)
def test_token_bad(fleet, roomy, which):
    token = bad_tokens(fleet.keys, roomy.client_id)[which]
    with refused("unauthenticated"):
        roomy.call("availability", token=token)


@pytest.mark.parametrize("value", [None, "", 5, b"v4.public.x", True, ["x"], {"a": 1}])
def test_token_missing_or_of_another_type(roomy, value):
    with refused("unauthenticated"):
        roomy.call("availability", token=value)


def test_token_no_character_can_be_changed(roomy):
    """Flips each character of a session's token."""
    token = roomy.token
    requests = []
    for at, was in enumerate(token):
        changed = token[:at] + ("A" if was != "A" else "B") + token[at + 1 :]
        requests.append(
            ("availability", {"token": changed, "client_id": roomy.client_id}))
    for at, (error, _) in enumerate(roomy.client.ask_all(requests)):
        assert error and error["code"] == "unauthenticated", f"character {at} of {token}"
    assert roomy.call("availability")["status"] == "ok"


def test_token_that_expires_while_in_use(fleet, roomy):
    """A token that was good, and so remembered as good, ends when it ends."""
    kid, seed = token_seed(fleet.keys)
    now = int(time.time())
    token = make_token(roomy.client_id, kid, seed, now, now + 4)
    assert roomy.call("availability", token=token)["status"] == "ok"

    def dead():
        error, _ = roomy.ask("availability", token=token)
        return error and error["code"] == "unauthenticated"

    wait_until(dead, 6)
    assert time.time() >= now + 3.9


# -- the quota -----------------------------------------------------------------------------------


def test_quota_of_login_is_per_source_and_spares_the_rest(fleet, roomy):
    source = own_source()
    with Client(fleet.public, source=source) as limited, Client(
        fleet.public, source=own_source()
    ) as neighbour:
        wrong = {"client_id": roomy.client_id, "password": "wrong password", "budget_ms": 30000}
        begin = time.monotonic()
        msgids = limited.send_batch([("login", wrong)] * 200)
        # Neither a neighbour's login nor other methods of the same source feel it.
        assert limited.call("ping")["status"] == "ok"
        assert limited.call(
            "availability", token=roomy.token, client_id=roomy.client_id)["status"] == "ok"
        answers = limited.wait(msgids, 60)
        elapsed = time.monotonic() - begin
        codes = [error["code"] for error, _ in answers.values()]
        assert set(codes) == {"unauthenticated", "rate_limited"}
        assert codes.count("unauthenticated") <= 100 + 20 * elapsed + 1
        assert codes.count("rate_limited") >= 200 - (100 + 20 * elapsed) - 1
        for error, _ in answers.values():
            assert (error["code"] == "rate_limited") == ("retry_after_ms" in error)
        assert neighbour.patient("login", client_id=roomy.client_id, password=PASSWORD)
        # After what it was told to wait, the source is let in again.
        assert limited.patient("login", client_id=roomy.client_id, password=PASSWORD, bound_s=10)
