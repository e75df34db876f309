# SPDX-License-Identifier: Apache-2.0
"""Writes tests/fuzz/corpus: a seed for each golden message, and the shapes that attacks have.

Usage: /usr/bin/python3 tests/fuzz/make_corpus.py
"""
import json
import pathlib

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAME_BYTES_MAX = 16384


def request(params, method="create_ticket", msgid=1):
    return msgpack.packb([0, msgid, method, [params]], use_bin_type=True)


def raw_map(pairs):
    """A params map whose keys may repeat."""
    body = b"".join(msgpack.packb(k) + msgpack.packb(v) for k, v in pairs)
    return b"\x94\x00\x01\xa4ping\x91\xde" + len(pairs).to_bytes(2, "big") + body


HOSTILE = {
    "depth-5": request({"a": {"b": {}}}),
    "depth-33": b"\x91" * 33 + b"\xc0",
    "array32-4g": b"\xdd\xff\xff\xff\xff",
    "map32-2g": b"\xdf\x7f\xff\xff\xff" + b"\xc0" * 13,
    "str32-4g": b"\x94\x00\x01\xdb\xff\xff\xff\xffping",
    "bin-beyond-end": request({"payload": b"x"})[:-1],
    "ext": b"\x94\x00\x01\xa4ping\x91\x81\xa1a\xd4\x01\x00",
    "reserved-c1": b"\x94\x00\x01\xa4ping\x91\x81\xa1a\xc1",
    "trailing-byte": request({}) + b"\xc0",
    "notification": msgpack.packb([2, "ping", [{}]]),
    "response": msgpack.packb([1, 7, None, {"status": "ok"}]),
    "msgid-2-32": request({}, "ping", 2**32),
    "msgid-negative": request({}, "ping", -1),
    "duplicate-key": raw_map([("a", 1), ("a", 2)]),
    "keys-129": raw_map([(f"k{i}", i) for i in range(129)]),
    "keys-128": raw_map([(f"k{i}", i) for i in range(128)]),
    "key-int": raw_map([(1, 2)]),
    "text-nul": request({"subject": "a\0b"}),
    "text-overlong": b"\x94\x00\x01\xa4ping\x91\x81\xa2\xc0\xaf\xc0",
    "text-surrogate": b"\x94\x00\x01\xa4ping\x91\x81\xa3\xed\xa0\x80\xc0",
    "float-unknown": request({"x": 1.5, "y": [1.25, None, True]}),
    "int-as-int64": b"\x94\xd3" + b"\0" * 8 + b"\xd2\x00\x00\x00\x07\xa4ping\x91\x80",
    "wrong-types": request({"client_id": 1, "ticket_type": b"x", "payload": "text"}),
    "password-513": request({"client_id": "c", "password": "x" * 513}, "login"),
    "classes-9": request({"client_id": "c", "classes": {f"c{i}": 5 for i in range(9)}},
                         "set_tenant"),
    "classes-nested": request({"client_id": "c", "classes": {"gold": [1]}}, "set_tenant"),
}


def main():
    corpus = ROOT / "tests" / "fuzz" / "corpus"
    corpus.mkdir(exist_ok=True)
    for old in corpus.iterdir():
        old.unlink()
    for path in sorted((ROOT / "schemas" / "messages").glob("*.json")):
        document = json.loads(path.read_text())
        for kind in ("requests", "answers"):
            for entry in document[kind]:
                seed = corpus / f"{path.stem}-{kind}-{entry['name']}"
                seed.write_bytes(bytes.fromhex(entry["hex"]))
    for name, data in HOSTILE.items():
        assert len(data) <= FRAME_BYTES_MAX
        (corpus / f"hostile-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
