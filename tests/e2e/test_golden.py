# SPDX-License-Identifier: Apache-2.0
"""The golden messages of schemas/messages, packed and unpacked by an independent msgpack library.

Canonical bytes: keys in the order of the file, the smallest encoding of every integer and length.
After a change of a message, `test_golden.py --write` fills in the bytes; review them as a diff.
"""
import base64
import json
import pathlib
import sys

import msgpack
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "schemas" / "messages"
METHODS = {
    "create_account", "login", "logout", "create_ticket", "cancel_ticket", "get_ticket",
    "list_tickets", "resolve_ticket", "availability", "validate_eta", "allocate_slot",
    "release_slot", "set_tenant", "get_tenant", "list_tenants", "change_password", "ping",
}
CODES = {
    "malformed", "unknown_method", "invalid_argument", "unauthenticated", "permission_denied",
    "not_found", "already_exists", "conflict", "suspended", "rate_limited", "overloaded",
    "deadline_exceeded", "unavailable", "internal",
}


def from_json(value):
    """The logical value: {"$bin": hex} is bytes, everything else is itself."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$bin"}:
            return bytes.fromhex(value["$bin"])
        return {key: from_json(item) for key, item in value.items()}
    return value


def pack(message):
    return msgpack.packb(from_json(message), use_bin_type=True)


def files():
    return sorted(FOLDER.glob("*.json"))


def entries():
    for path in files():
        document = json.loads(path.read_text())
        for kind in ("requests", "answers"):
            for entry in document[kind]:
                yield pytest.param(kind, entry, id=f"{path.stem}-{kind}-{entry['name']}")


@pytest.mark.parametrize("kind, entry", entries())
def test_golden_bytes(kind, entry):
    packed = bytes.fromhex(entry["hex"])
    assert pack(entry["message"]) == packed
    assert msgpack.unpackb(packed, raw=False, strict_map_key=True) == from_json(entry["message"])
    message = entry["message"]
    assert message[0] == (0 if kind == "requests" else 1)
    assert len(message) == 4
    if kind == "requests":
        assert message[2] in METHODS and len(message[3]) == 1 and isinstance(message[3][0], dict)
    else:
        assert (message[2] is None) != (message[3] is None)


def test_golden_covers_the_contract():
    documents = [json.loads(path.read_text()) for path in files()]
    requested = {entry["message"][2] for d in documents for entry in d["requests"]}
    failed = {entry["message"][2]["code"] for d in documents for entry in d["answers"]
              if entry["message"][2]}
    assert requested == METHODS
    assert failed == CODES


def le64(number):
    return number.to_bytes(8, "little")


def test_golden_token_is_paseto_v4_public():
    """Signature and layout of the example token, checked with another Ed25519."""
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    example = json.loads((FOLDER / "token" / "v4-public.json").read_text())
    header, rest = example["token"][:10], example["token"][10:]
    assert header == "v4.public."
    body, footer = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
                    for part in rest.split("."))
    claims, signature = body[:-64], body[-64:]
    pieces = [header.encode(), claims, footer, b""]
    signed = le64(len(pieces)) + b"".join(le64(len(piece)) + piece for piece in pieces)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(example["seed_hex"]))
    key.public_key().verify(signature, signed)
    assert key.sign(signed) == signature
    assert list(json.loads(claims).items()) == list(example["claims"].items())
    assert json.loads(footer) == example["footer"]


def write():
    """Fills in the bytes of every message, one line a message and one for its bytes."""
    for path in files():
        document = json.loads(path.read_text())
        lines = ["{", f'  "about": {json.dumps(document["about"], ensure_ascii=False)},']
        for kind in ("requests", "answers"):
            lines.append(f'  "{kind}": [')
            rows = []
            for entry in document[kind]:
                row = [f'    {{"name": {json.dumps(entry["name"])},']
                if "canonical" in entry:
                    row.append(f'     "canonical": {json.dumps(entry["canonical"])},')
                text = json.dumps(entry["message"], ensure_ascii=False)
                row.append(f'     "message": {text},')
                row.append(f'     "hex": "{pack(entry["message"]).hex()}"}}')
                rows.append("\n".join(row))
            lines.append(",\n".join(rows))
            lines.append("  ]," if kind == "requests" else "  ]")
        lines.append("}")
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
