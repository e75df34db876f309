# SPDX-License-Identifier: Apache-2.0
"""`docket doctor`: what it finds, and that it fails where a fleet would."""

import json
import resource
import socket
import subprocess

from fleet import DOCKET


def doctor(*args, **options):
    return subprocess.run(
        [DOCKET, "doctor", *args], capture_output=True, text=True, timeout=60, **options
    )


def checks(result):
    return {row["check"]: row for row in json.loads(result.stdout)["checks"]}


def test_doctor_says_what_it_found(folder):
    found = checks(doctor("--json", "--data", folder))
    for library in ("libzmq", "czmq", "msgpack-c", "libpq", "nats.c", "libsodium", "xxhash"):
        assert found[library]["verdict"] == "ok", found[library]
    assert "15." in found["postgres"]["found"]
    assert "fdatasync" in found["commit latency"]["found"]


def test_doctor_gives_advice_for_whatever_is_not_ok(folder):
    for row in checks(doctor("--json", "--data", folder)).values():
        assert row["found"]
        assert bool(row["advice"]) == (row["verdict"] != "ok")


def test_doctor_fails_with_too_few_open_files(folder):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    result = doctor("--json", "--data", folder, preexec_fn=few)
    assert result.returncode == 1
    assert checks(result)["open files"]["verdict"] == "fail"


def test_doctor_warns_of_a_taken_port(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        result = doctor("--json", "--data", folder, "--port", str(number))
    assert checks(result)["ports"]["verdict"] == "warn"
    assert str(number) in checks(result)["ports"]["found"]


def test_doctor_fails_without_its_folder():
    result = doctor("--data", "/nonexistent")
    assert result.returncode == 1
    assert "fail  disk" in result.stdout
