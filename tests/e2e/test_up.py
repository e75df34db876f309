# SPDX-License-Identifier: Apache-2.0
"""`docket up`: the contract with scripts, and that nothing is lost or left over."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import psycopg2
import pytest

from fleet import DOCKET, STOP_S, alive, wait_until

ROLES = ["broker-0", "nats-0", "postgres-0", "worker-0", "worker-1"]


def run_docket(*args):
    return subprocess.run([DOCKET, *args], capture_output=True, text=True, timeout=60)


def keep_a_row(fleet):
    fleet.sql("create table kept (n int)", database="postgres")
    fleet.sql("insert into kept values (42)", database="postgres")


def kept_rows(fleet):
    return fleet.sql("select n from kept", database="postgres")


# -- the ready line and what it names ------------------------------------------------------------


def test_up_ready_line_names_every_endpoint(fleet):
    port = fleet.port
    assert fleet.ready == {
        "public": f"tcp://127.0.0.1:{port}",
        "internal": f"tcp://127.0.0.1:{port + 1}",
        "nats": f"nats://127.0.0.1:{port + 2}",
        "postgres": f"postgresql://docket@127.0.0.1:{port + 3}/docket_control"
        f"?passfile={fleet.data}/keys/pgpass",
        "keys": f"{fleet.data}/keys",
    }
    for offset in (0, 1, 2, 3, 5, 6):
        socket.create_connection(("127.0.0.1", port + offset), 2).close()


def test_up_lists_every_broker(new_fleet):
    fleet = new_fleet(brokers=2, workers=1).start()
    port = fleet.port
    assert fleet.ready["public"] == f"tcp://127.0.0.1:{port},tcp://127.0.0.1:{port + 10}"
    assert fleet.ready["internal"] == f"tcp://127.0.0.1:{port + 1},tcp://127.0.0.1:{port + 11}"
    assert sorted(fleet.pids()) == ["broker-0", "broker-1", "nats-0", "postgres-0", "worker-0"]


def test_up_pid_files_name_the_processes_of_their_roles(fleet):
    pids = fleet.pids()
    assert sorted(pids) == ROLES
    for name, pid in pids.items():
        assert alive(pid)
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as stream:
            assert name.split("-")[0] in stream.read()
        assert os.path.exists(os.path.join(fleet.data_folder, "log", f"{name}.log"))


def test_up_never_runs_its_processes_as_root(fleet):
    for pid in fleet.pids().values():
        with open(f"/proc/{pid}/status", encoding="ascii") as stream:
            uids = re.search(r"^Uid:\s+(.*)$", stream.read(), re.M).group(1).split()
        assert "0" not in uids


def test_up_keys_are_private(fleet):
    assert os.stat(fleet.keys).st_mode & 0o777 == 0o700
    for name in os.listdir(fleet.keys):
        wanted = 0o644 if name in ("internal.pub", "receipt.pub") else 0o600
        assert os.stat(os.path.join(fleet.keys, name)).st_mode & 0o777 == wanted


@pytest.mark.parametrize(
    "setting, value",
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("recovery_init_sync_method", "syncfs"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("client_connection_check_interval", "1s"),
    ],
)
def test_up_postgres_setting(fleet, setting, value):
    assert fleet.sql(f"show {setting}") == [(value,)]


def test_up_postgres_wants_the_password(fleet):
    for password in ("", "wrong"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(
                f"host=127.0.0.1 port={fleet.port + 3} user=docket dbname=postgres",
                password=password,
                passfile="/dev/null",
            )


def test_up_nats_refuses_strangers(fleet):
    with socket.create_connection(("127.0.0.1", fleet.port + 2), 5) as stranger:
        stranger.sendall(b'CONNECT {"verbose":false}\r\nPUB docket.ctx.head 1\r\nx\r\nPING\r\n')
        stranger.settimeout(10)
        heard = b""
        while b"-ERR" not in heard and b"PONG" not in heard:
            heard += stranger.recv(4096) or b"-ERR closed"
    assert b"Authorization Violation" in heard and b"PONG" not in heard


# -- the end -------------------------------------------------------------------------------------


def test_up_stops_in_time_and_leaves_nothing(new_fleet, folder):
    fleet = new_fleet(data=None, env={"TMPDIR": folder}).start()
    pids = fleet.pids()
    made = fleet.data_folder
    assert os.path.dirname(made) == folder
    status, seconds = fleet.stop(signal.SIGTERM)
    assert status == 0
    assert seconds < STOP_S
    assert not [name for name, pid in pids.items() if alive(pid)]
    assert not os.path.exists(made)
    for offset in (0, 1, 2, 3, 5, 6):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", fleet.port + offset))


def test_up_stops_in_time_with_a_stopped_worker(new_fleet):
    fleet = new_fleet().start()
    pid = fleet.kill("worker-0", signal.SIGSTOP)
    status, seconds = fleet.stop(signal.SIGINT)
    assert status == 0
    assert seconds < STOP_S
    assert not alive(pid)


def test_up_killed_supervisor_takes_all_down(new_fleet, folder):
    fleet = new_fleet(data=None, env={"TMPDIR": folder}).start()
    pids = fleet.pids()
    fleet.kill("worker-1", signal.SIGSTOP)
    fleet.process.kill()
    fleet.process.wait(5)
    wait_until(lambda: not any(alive(pid) for pid in pids.values()), 15)
    wait_until(lambda: not os.path.exists(fleet.data_folder), 15)


# -- the data ------------------------------------------------------------------------------------


def contents(folder):
    texts = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="ascii") as stream:
            texts[name] = stream.read()
    return texts


@pytest.fixture
def other_fleets():
    """Fleets that have found every second base of ports, and bind nothing yet: these bases."""
    claimed = set()
    with contextlib.ExitStack() as stack:
        for base in range(20000, 32000, 20):
            name = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):  # so it is one that runs
                name.bind(f"\0docket-port-{base}")
                claimed.add(base)
        yield claimed


def test_up_finds_its_data_again_on_another_port(new_fleet, other_fleets):
    """One that it chooses, while somebody else has the old one, and that no other fleet chose."""
    fleet = new_fleet(port=0).start()
    keep_a_row(fleet)
    keys, first = contents(fleet.keys), fleet.port
    fleet.stop()
    assert fleet.pids() == {}
    fleet.port = 0
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        fleet.start()
    assert fleet.port != first
    assert len(other_fleets) > 500 and not {first, fleet.port} & other_fleets
    assert kept_rows(fleet) == [(42,)]
    assert contents(fleet.keys) == keys


def test_up_finds_its_data_again_after_kill_9_of_everything(new_fleet):
    fleet = new_fleet().start()
    keep_a_row(fleet)
    fleet.kill_everything()
    fleet.start()
    assert kept_rows(fleet) == [(42,)]
    # Once more; and as after a reboot, PostgreSQL's pid file names a stranger, and there are pid
    # files of processes that will not be there.
    stale = os.path.join(fleet.data_folder, "pg", "postmaster.pid")
    with open(stale, encoding="ascii") as stream:
        lines = stream.read().splitlines()
    fleet.kill_everything()
    wait_until(fleet.nobody_left, 15)
    with open(stale, "w", encoding="ascii") as stream:
        stream.write("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    fleet.workers = 1
    fleet.start()
    assert kept_rows(fleet) == [(42,)]
    assert sorted(fleet.pids()) == ["broker-0", "nats-0", "postgres-0", "worker-0"]


def test_up_leaves_a_foreign_folder_alone(folder):
    kept = os.path.join(folder, "letter.txt")
    with open(kept, "w", encoding="ascii") as stream:
        stream.write("dear")
    before = os.stat(kept)
    result = run_docket("up", "--data", folder, "--port", "0")
    assert result.returncode == 1
    assert "neither empty nor a folder of docket" in result.stderr
    assert os.listdir(folder) == ["letter.txt"]
    assert (os.stat(kept).st_uid, os.stat(folder).st_uid) == (before.st_uid, before.st_uid)


def may_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"]).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="only for root, where private mounts are permitted")
def test_up_as_root_in_a_folder_that_its_user_cannot_reach(new_fleet, folder):
    os.chmod(folder, 0o700)
    fleet = new_fleet(env={"TMPDIR": folder}).start()
    keep_a_row(fleet)
    assert fleet.keys.startswith(folder)
    assert sorted(fleet.pids()) == ROLES
    fleet.kill_everything()
    fleet.start()
    assert kept_rows(fleet) == [(42,)]


# -- more than one -------------------------------------------------------------------------------


def test_up_says_which_port_is_taken(new_fleet, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        base = number - 3
        data = os.path.join(folder, "never")
        result = run_docket("up", "--data", data, "--port", str(base))
    assert result.returncode == 1
    assert result.stdout == ""
    # The neighbours may be taken too: a number and what to do is the point.
    assert re.search(r"port \d+ \(.*\) is taken", result.stderr)
    assert "--port" in result.stderr
    assert not os.path.exists(os.path.join(data, "pg"))


def test_up_refuses_a_folder_in_use(new_fleet):
    fleet = new_fleet().start()
    begin = time.monotonic()
    result = run_docket("up", "--data", fleet.data, "--port", "0")
    assert result.returncode == 1
    assert f"in use by docket up, pid {fleet.process.pid}" in result.stderr
    assert time.monotonic() - begin > 5  # it waited for an old fleet to end
    assert all(alive(pid) for pid in fleet.pids().values())


def test_up_two_fleets_do_not_disturb_each_other(new_fleet):
    one, two = new_fleet().start(), new_fleet().start()
    keep_a_row(one)
    pids = one.pids()
    two.kill_everything()
    two.start()
    two.stop()
    assert one.pids() == pids
    assert all(alive(pid) for pid in pids.values())
    assert kept_rows(one) == [(42,)]


# -- what dies -----------------------------------------------------------------------------------


def test_up_restarts_what_dies(new_fleet):
    fleet = new_fleet().start()
    keep_a_row(fleet)
    for name in ROLES:
        fleet.restarted(name, fleet.kill(name))
        assert re.search(rf"{name}: pid \d+ ended by signal 9", fleet.stderr())

    def serves():
        try:
            return kept_rows(fleet) == [(42,)]
        except psycopg2.OperationalError:
            return False

    wait_until(serves, 20)
    # Every further death within 10 s makes the wait longer.
    for _ in range(2):
        fleet.restarted("nats-0", fleet.kill("nats-0"))
    waits = [int(ms) for ms in re.findall(r"nats-0: restart in (\d+) ms", fleet.stderr())]
    assert len(waits) == 3 and waits[2] == 2 * waits[1]
    assert fleet.process.poll() is None


def test_up_no_restart_stops_everything(new_fleet):
    fleet = new_fleet(args=["--no-restart"]).start()
    pids = fleet.pids()
    fleet.kill("broker-0")
    assert fleet.process.wait(STOP_S) == 1
    assert not any(alive(pid) for pid in pids.values())


# -- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["up", "--port", "70000"],
        ["up", "--port", "65530"],
        ["up", "--port", "x"],
        ["up", "--brokers", "0"],
        ["up", "--workers", "1000"],
        ["up", "--unknown"],
        ["up", "surplus"],
        ["no-such-command"],
        ["bench", "no-such-bench"],
        [],
    ],
)
def test_docket_wrong_use_is_exit_2(args):
    result = run_docket(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.parametrize("args", [["--help"], ["up", "--help"], ["doctor", "--help"]])
def test_docket_help_is_on_stdout(args):
    result = run_docket(*args)
    assert result.returncode == 0
    assert "usage: docket" in result.stdout


def test_docket_version_everywhere():
    for args in (["--version"], ["up", "--version"], ["bench", "ledger", "--version"]):
        result = run_docket(*args)
        assert re.fullmatch(r"docket \d+\.\d+\.\d+\n", result.stdout)
        assert result.returncode == 0
