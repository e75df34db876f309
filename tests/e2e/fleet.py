# SPDX-License-Identifier: Apache-2.0
"""A fleet started by `docket up`, as tests see it: endpoints, processes, logs."""

import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from urllib.parse import urlsplit, urlunsplit

import psycopg2

PORTS = range(20000, 32000, 20)  # bases of fleets: below the ephemeral ports
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DOCKET = os.environ.get("DOCKET", os.path.join(ROOT, "build", "bin", "docket"))
START_S = 90
STOP_S = 10  # the contract: a stop ends within it
# A line in any log that no test may cause.
BAD_LOG = re.compile(
    r"Assertion|assertion failed|ERROR: (Address|Leak|Thread)Sanitizer|runtime error:|PANIC"
)


def wait_until(what, bound_s=10.0, every_s=0.02):
    """Calls `what` until it returns something true, which is returned; fails after the bound."""
    end = time.monotonic() + bound_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {bound_s} s: {getattr(what, '__name__', what)}")
        time.sleep(every_s)


def port_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_port():
    """A base whose ports are free, and never the same again in this test run: fleets of its other
    processes start at the same time and have bases of their own, and one that is down for a moment
    finds its ports again."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = [base for base in PORTS[share::shares] if base not in choose_port.given]
    random.shuffle(mine)
    for base in mine:
        if all(port_free(port) for port in range(base, base + 17)):
            choose_port.given.add(base)
            return base
    raise AssertionError("no free ports")


choose_port.given = set()


def alive(pid):
    """Does the process live? One that ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Fleet:
    """Use as a context manager, or call start() and close(). Without a port it gets one of this
    test run's; with port 0 docket chooses."""

    started = weakref.WeakSet()  # whose logs a failed test shows

    def __init__(self, folder, data=None, port=None, brokers=1, workers=2, args=(), env=None):
        """Files of the test go to `folder`; `data` None lets `docket up` make a temporary one."""
        self.folder = str(folder)
        self.data = str(data) if data else None
        port = choose_port() if port is None else port
        self.port, self.brokers, self.workers = port, brokers, workers
        self.args, self.env = list(args), dict(env or {})
        self.process = None
        self.ready = {}
        self.stderr_path = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        self.close(scan=kind is None)

    # -- start and end ---------------------------------------------------------------------------

    def command(self):
        command = [DOCKET, "up", "--port", str(self.port)]
        command += ["--brokers", str(self.brokers), "--workers", str(self.workers)]
        if self.data:
            command += ["--data", self.data]
        return command + self.args

    def launch(self):
        """Starts the supervisor without waiting for the fleet."""
        handle, self.stderr_path = tempfile.mkstemp(prefix="up-", suffix=".err", dir=self.folder)
        with os.fdopen(handle, "w") as stderr:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **self.env},
            )
        self.started.add(self)
        return self

    def start(self):
        self.launch()
        os.set_blocking(self.process.stdout.fileno(), False)
        text = ""

        def line():
            nonlocal text
            try:
                text += os.read(self.process.stdout.fileno(), 65536).decode()
            except BlockingIOError:
                pass
            assert self.process.poll() is None, f"docket up ended:\n{self.stderr()}"
            return "\n" in text

        try:
            wait_until(line, START_S)
        except BaseException:
            self.close(scan=False)
            raise
        self.ready = self.parse_ready(text)
        self.port = int(self.public.rpartition(":")[2])
        return self

    @staticmethod
    def parse_ready(line):
        words = line.split()
        assert words[0] == "ready", line
        return dict(word.split("=", 1) for word in words[1:])

    def stop(self, signal_number=signal.SIGTERM):
        """The orderly end; returns (exit status, seconds)."""
        begin = time.monotonic()
        self.process.send_signal(signal_number)
        status = self.process.wait(STOP_S + 5)
        return status, time.monotonic() - begin

    def kill_everything(self):
        """kill -9 of the supervisor and of all it started, at once."""
        for pid in [self.process.pid, *self.pids().values()]:
            self.signal_pid(pid, signal.SIGKILL)
        self.process.wait(5)

    def close(self, scan=True):
        """Ends what still runs; then no log may hold a failed assertion or a sanitizer's report."""
        folder = self.data_folder
        if self.process and self.process.poll() is None:
            if scan and folder:
                self.scan_logs()  # a temporary folder is gone after the end
            self.process.terminate()
            try:
                self.process.wait(STOP_S + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        if self.process:
            self.process.stdout.close()
        if scan:
            self.scan_logs()

    # -- endpoints -------------------------------------------------------------------------------

    @property
    def public(self):
        return self.ready["public"].split(",")[0]

    @property
    def internal(self):
        return self.ready["internal"].split(",")[0]

    @property
    def nats(self):
        return self.ready["nats"]

    @property
    def keys(self):
        return self.ready["keys"]

    @property
    def data_folder(self):
        return os.path.dirname(self.ready["keys"]) if self.ready else self.data

    def postgres_uri(self, database=None):
        """The administrator's URI; of the control database unless another is named."""
        parts = urlsplit(self.ready["postgres"])
        return urlunsplit(parts._replace(path="/" + database)) if database else parts.geturl()

    def sql(self, statement, values=None, database=None):
        """Runs one statement as the administrator, in a transaction of its own unless it cannot."""
        connection = psycopg2.connect(self.postgres_uri(database), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    # -- processes -------------------------------------------------------------------------------

    def pids(self):
        """{"worker-0": pid, ..} of what runs now."""
        run, pids = os.path.join(self.data_folder, "run"), {}
        for name in sorted(os.listdir(run)):
            if name.endswith(".pid"):
                try:
                    with open(os.path.join(run, name), encoding="ascii") as stream:
                        pids[name[: -len(".pid")]] = int(stream.read())
                except FileNotFoundError:
                    pass  # it ended between the two calls
        return pids

    @staticmethod
    def signal_pid(pid, signal_number):
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            pass

    def kill(self, name, signal_number=signal.SIGKILL):
        """Signals one process by name ("worker-0"); returns its pid."""
        pid = self.pids()[name]
        self.signal_pid(pid, signal_number)
        return pid

    def restarted(self, name, old_pid, bound_s=20):
        """Waits until a process of that name runs again; returns its pid."""

        def new_pid():
            pid = self.pids().get(name)
            return pid if pid and pid != old_pid and alive(pid) else None

        return wait_until(new_pid, bound_s)

    def nobody_left(self):
        """Every process of a fleet holds the lock of its folder."""
        path = os.path.join(self.data_folder, "lock")
        if not os.path.exists(path):
            return True
        with open(path, "r+", encoding="ascii") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    # -- logs ------------------------------------------------------------------------------------

    def stderr(self):
        with open(self.stderr_path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def logs(self):
        """{name: text} of all logs, the supervisor's as "up"."""
        texts = {"up": self.stderr()} if self.stderr_path else {}
        folder = os.path.join(self.data_folder or "", "log")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8", errors="replace") as stream:
                texts[name.removesuffix(".log")] = stream.read()
        return texts

    def scan_logs(self):
        found = [
            f"{name}: {line}"
            for name, text in self.logs().items()
            for line in text.splitlines()
            if BAD_LOG.search(line)
        ]
        assert not found, "\n".join(found)
