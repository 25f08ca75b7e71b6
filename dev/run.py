"""`make run`: the whole platform on one machine, with embedded defaults; `python -m dev.run reset` forgets it.

Everything is under .dev/. Variables of the environment win over those of .env, and those over the defaults here.
What is killed is started again on the same ports, as an init system would; Ctrl-C, SIGTERM or the terminal's end stop
everything. Where things are is written to .dev/endpoints.json when the service is ready, and removed at the end.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from app.config import read_env_file
from app.supervisor import ROOT, spawn
from dev import geo_sample
from dev.cluster import Cluster, ClusterError

DEV = Path(os.environ.get("GALAXY_DEV_DIR") or ROOT / ".dev")
DATABASE = "galaxy"
ENGINE_VERSION = "1.0.0"
PATIENCE = 120  # seconds until the service must be ready for the first time
GRACE = 90  # seconds that `serve` may take to stop; its programs have budgets of their own
LARGEST_LOG = 20 << 20

# Name → the port that is tried first, and how many in a row are needed: `serve` has a scrape address per program.
PORTS = {
    "http": (8080, 1),
    "grpc": (8081, 1),
    "metrics": (9100, 3),
    "mail_smtp": (1025, 1),
    "mail_http": (8025, 1),
    "translator": (5000, 1),
    "postgres": (5433, 1),
}

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class RunError(Exception):
    """The platform cannot run; the message says why."""


def say(text: str = "") -> None:
    print(text, flush=True)


# -- what is kept in .dev


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a file that only we may read, in one step."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    except FileNotFoundError:
        return {}


def keep_secrets() -> dict[str, str]:
    """Return the secrets of this platform; they are made once."""
    path = DEV / "secrets.json"
    known = read_json(path)
    made = {name: secrets.token_urlsafe(24) for name in ("internal_token", "pepper", "admin_password")}
    if known.keys() < made.keys() or not known:
        write_json(path, made | known)
    return made | known


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that have just ended do not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


class Ports:
    """The ports that this run keeps to itself: nobody listens there, and no other run of this user has taken them.

    Taken by a lock, not by listening: a port must not become another run's while what listens there is being restarted.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"galaxy-ports-{os.getuid()}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._locks: dict[int, int] = {}

    def take(self, first: int, count: int) -> bool:
        """Take ports in a row, all or none."""
        wanted = range(first, first + count)
        if first + count > 65536 or self._locks.keys() & set(wanted):
            return False
        if all(map(self._take_one, wanted)):
            return True
        for port in self._locks.keys() & set(wanted):
            os.close(self._locks.pop(port))
        return False

    def _take_one(self, port: int) -> bool:
        descriptor = os.open(self._directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        self._locks[port] = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return is_free(port)


def choose_ports(ports: Ports) -> dict[str, int]:
    """Take the ports of the last run where they are free, else the preferred ones, else any."""
    path = DEV / "ports.json"
    last = read_json(path)
    chosen: dict[str, int] = {}
    for name, (preferred, count) in PORTS.items():
        # Programs of a run that was killed may need a moment to notice.
        for _ in range(20 if name in last else 0):
            if ports.take(last[name], count):
                chosen[name] = last[name]
                break
            time.sleep(0.25)
        else:
            chosen[name] = next(port for port in range(preferred, 65536, count) if ports.take(port, count))
    write_json(path, chosen)
    return chosen


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold .dev/lock, which has our process id in it; raises RunError if another run holds it."""
    DEV.mkdir(exist_ok=True)
    with (DEV / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(f"the platform is running already (process {file.read().strip()}): see .dev/endpoints.json") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


# -- what the programs are told


def settings(cluster: Cluster, ports: Mapping[str, int], known: Mapping[str, str]) -> dict[str, str]:
    """Return every BACKEND_ variable: defaults, then .env, then our own environment."""
    found = {
        "BACKEND_DEVELOPMENT": "true",
        "BACKEND_HTTP_LISTEN_ADDR": f"127.0.0.1:{ports['http']}",
        "BACKEND_GRPC_PUSH_LISTEN_ADDR": f"127.0.0.1:{ports['grpc']}",
        "BACKEND_INTERNAL_TOKEN": known["internal_token"],
        "BACKEND_AUTH_PEPPER": known["pepper"],
        "BACKEND_ADMIN_BOOTSTRAP_USER": "admin",
        "BACKEND_ADMIN_BOOTSTRAP_PASSWORD": known["admin_password"],
        "BACKEND_POSTGRES_DSN": cluster.dsn("galaxy_api", DATABASE),
        "BACKEND_POSTGRES_DSN_API": cluster.dsn("galaxy_api", DATABASE),
        "BACKEND_POSTGRES_DSN_PUSH": cluster.dsn("galaxy_push", DATABASE),
        "BACKEND_POSTGRES_DSN_WORKER": cluster.dsn("galaxy_worker", DATABASE),
        "BACKEND_POSTGRES_DSN_DEPLOY": cluster.dsn("galaxy_deploy", DATABASE),
        "BACKEND_SMTP_HOST": "127.0.0.1",
        "BACKEND_SMTP_PORT": str(ports["mail_smtp"]),
        "BACKEND_SMTP_TLS_MODE": "none",
        "BACKEND_SMTP_FROM": "Galaxy <galaxy@galaxy.example>",
        "BACKEND_NOTIFICATION_ADMIN_EMAIL": "admin@galaxy.example",
        "BACKEND_DIPLOMAIL_TRANSLATOR_URL": f"http://127.0.0.1:{ports['translator']}",
        "BACKEND_RUNTIME_DRIVER": "process",
        "BACKEND_GAME_STATE_ROOT": str(DEV / "games"),
        "BACKEND_GEOIP_DB_PATH": str(DEV / "geo.mmdb"),
        "BACKEND_OTEL_TRACES_EXPORTER": "none",
        "BACKEND_OTEL_METRICS_EXPORTER": "prometheus",
        "BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR": f"127.0.0.1:{ports['metrics']}",
    }
    if (ROOT / ".env").exists():
        try:
            found |= read_env_file(ROOT / ".env")
        except ValueError as error:
            raise RunError(str(error)) from None
    return found | {name: value for name, value in os.environ.items() if name.startswith("BACKEND_")}


def reachable(address: str) -> str:
    """Return a listening address as one to connect to."""
    host, _, port = address.rpartition(":")
    return f"{host if host not in ('', '0.0.0.0', '[::]') else '127.0.0.1'}:{port}"


def endpoints(cluster: Cluster, ports: Mapping[str, int], used: Mapping[str, str]) -> dict[str, object]:
    return {
        "http_url": f"http://{reachable(used['BACKEND_HTTP_LISTEN_ADDR'])}",
        "grpc_target": reachable(used["BACKEND_GRPC_PUSH_LISTEN_ADDR"]),
        "metrics_url": f"http://{reachable(used['BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR'])}/metrics",
        "mail_url": f"http://127.0.0.1:{ports['mail_http']}",
        # The superuser's, and in libpq's way of writing: for psql and for looking around.
        "postgres_dsn": f"postgresql://postgres@127.0.0.1:{cluster.port}/{DATABASE}?options=-csearch_path%3Dbackend",
        "admin_user": used["BACKEND_ADMIN_BOOTSTRAP_USER"],
        "admin_password": used["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"],
        "internal_token": used["BACKEND_INTERNAL_TOKEN"],
        "state_root": used["BACKEND_GAME_STATE_ROOT"],
    }


# -- asking the service


def ask(url: str, *, login: tuple[str, str] | None = None, body: Mapping[str, object] | None = None) -> tuple[int, bytes]:
    """Return status and body of an answer, (0, why) when there is none. Proxies of the environment do not count."""
    request = urllib.request.Request(url)  # noqa: S310  # an http URL of ours
    if login is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def register_engine(places: Mapping[str, object]) -> None:
    """Register the development engine, so that a first game needs no set-up."""
    login = (str(places["admin_user"]), str(places["admin_password"]))
    body = {"version": ENGINE_VERSION, "image_ref": f"dev-engine:{ENGINE_VERSION}"}
    status, answer = ask(f"{places['http_url']}/api/v1/admin/engine-versions", login=login, body=body)
    if status not in (201, 409):
        say(f"The development engine could not be registered: {status} {answer.decode(errors='replace')}")


# -- the run


class Platform:
    """The processes of one run. Its methods may be interrupted by the signal that stops it."""

    def __init__(self) -> None:
        self._taken = Ports()
        self.ports = choose_ports(self._taken)
        self.cluster = Cluster(DEV / "postgres", port=self.ports["postgres"], die_with_parent=True)
        self.serve: subprocess.Popen[bytes] | None = None
        self.mail: subprocess.Popen[bytes] | None = None
        self.translator: subprocess.Popen[bytes] | None = None
        self.used: dict[str, str] = {}
        self.places: dict[str, object] = {}
        self.announced: int | None = None  # the process of `serve` that endpoints.json tells of

    def start(self) -> None:
        say("Starting Postgres …")
        self.cluster.start()
        if not self.cluster.has_database(DATABASE):
            self.cluster.create_database(DATABASE)
        if not (DEV / "geo.mmdb").exists():
            geo_sample.write(DEV / "geo.mmdb")
        (DEV / "games").mkdir(exist_ok=True)
        self.used = settings(self.cluster, self.ports, keep_secrets())
        self.places = endpoints(self.cluster, self.ports, self.used)
        self.start_mail()
        self.start_translator()
        say("Deploying the schema, starting the service …")
        self.start_serve()

    def start_mail(self) -> None:
        ports = [f"--smtp-port={self.ports['mail_smtp']}", f"--http-port={self.ports['mail_http']}"]
        with open_log("mail.log") as log:
            self.mail = spawn([sys.executable, "-m", "dev.mail_catcher", *ports], output=log)

    def start_translator(self) -> None:
        with open_log("translator.log") as log:
            self.translator = spawn([sys.executable, "-m", "dev.translator", f"--port={self.ports['translator']}"], output=log)

    def start_serve(self) -> None:
        with open_log("serve.log") as log:
            environment = {**os.environ, **self.used, "PYTHONUNBUFFERED": "1"}
            self.serve = spawn([sys.executable, "-m", "app", "serve"], environment=environment, output=log)

    def keep_running(self) -> NoReturn:
        """Start again what was killed, and announce the service whenever it has become ready."""
        assert self.serve is not None
        assert self.mail is not None
        assert self.translator is not None
        deadline = time.monotonic() + PATIENCE
        while True:
            reap({self.serve.pid, self.mail.pid, self.translator.pid, self.cluster.pid})
            if self.serve.poll() is not None:
                if self.serve.returncode >= 0:
                    raise RunError(f"serve ended with exit code {self.serve.returncode}:\n{log_tail('serve.log')}")
                say("serve was killed: starting it again")
                time.sleep(1)
                self.start_serve()
            if self.mail.poll() is not None:
                say("the mail catcher ended: starting it again")
                time.sleep(1)
                self.start_mail()
            if self.translator.poll() is not None:
                say("the stand-in translator ended: starting it again")
                time.sleep(1)
                self.start_translator()
            if self.cluster.pid is None:
                say("Postgres ended: starting it again")
                self.cluster.start()
            if self.announced != self.serve.pid:
                status, answer = ask(f"{self.places['http_url']}/readyz")
                if status == 200:
                    self.announce()
                elif self.announced is None and time.monotonic() > deadline:
                    answer_text = answer.decode(errors="replace")
                    raise RunError(f"not ready after {PATIENCE} s: {answer_text}\n{log_tail('serve.log')}")
            time.sleep(0.2)

    def announce(self) -> None:
        assert self.serve is not None
        first = self.announced is None
        if first:
            register_engine(self.places)
        write_json(DEV / "endpoints.json", {**self.places, "serve_pid": self.serve.pid})
        self.announced = self.serve.pid
        say(summary(self.places) if first else "serve is ready again")

    def stop(self) -> None:
        """Stop everything in order; interrupted by a second signal, `kill` remains."""
        (DEV / "endpoints.json").unlink(missing_ok=True)
        end(self.serve, GRACE)
        # Engines outlive the worker that started them, but not the platform.
        helpers = (self.mail, self.translator)
        end_orphans({*(helper.pid for helper in helpers if helper), self.cluster.pid})
        for helper in helpers:
            end(helper, 5)
        self.cluster.stop()
        with contextlib.suppress(OSError):
            self.cluster.socket_directory.rmdir()  # one who was killed has left a socket there

    def kill(self) -> None:
        for process in (self.serve, self.mail, self.translator):
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        end_orphans({self.cluster.pid}, grace=0)
        self.cluster.stop("immediate")


def end(process: subprocess.Popen[bytes] | None, grace: float) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def reap(ours: set[int | None]) -> None:
    """Take note of the ends of adopted processes, so that they do not stay as zombies."""
    for pid in children() - ours:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_orphans(ours: set[int | None], grace: float = 5) -> None:
    """Stop the processes that have become our children because their parents ended."""
    until = time.monotonic() + grace
    told: set[int] = set()
    while orphans := children() - ours:
        late = time.monotonic() >= until
        for pid in orphans if late else orphans - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= orphans
        reap(ours)
        time.sleep(0.02)


def open_log(name: str) -> IO[bytes]:
    path = DEV / name
    if path.exists() and path.stat().st_size > LARGEST_LOG:
        path.replace(path.with_name(f"{name}.1"))
    return path.open("ab")


def log_tail(name: str) -> str:
    return "\n".join((DEV / name).read_text(errors="replace").splitlines()[-30:])


def summary(places: Mapping[str, object]) -> str:
    return f"""
The platform is running.

  REST, probes     {places["http_url"]}
  push (gRPC)      {places["grpc_target"]}
  metrics          {places["metrics_url"]}  (push and worker: the next two ports)
  caught mail      {places["mail_url"]}
  Postgres         psql '{places["postgres_dsn"]}'
  administrator    {places["admin_user"]}, password {places["admin_password"]}
  gateway          internal token {places["internal_token"]}
  engines' state   {places["state_root"]}
  logs             tail -f .dev/serve.log
  all of this      .dev/endpoints.json

Try it: ask for a login code, and read it.

  curl -s {places["http_url"]}/api/v1/public/auth/send-email-code \\
      -H 'Content-Type: application/json' -d '{{"email": "ada@example.com"}}'
  curl -s '{places["mail_url"]}/messages?to=ada@example.com'

`make demo` plays a whole story. Ctrl-C stops everything; `make run` goes on with the same data; `make reset` forgets it.
"""


def interrupter() -> Callable[[int, FrameType | None], None]:
    told = -math.inf

    def interrupt(signo: int, frame: FrameType | None) -> None:
        nonlocal told
        # One request may come twice: to the group of `make`, and from `make`.
        if time.monotonic() - told > 1:
            told = time.monotonic()
            raise KeyboardInterrupt

    return interrupt


def run() -> int:
    interrupt = interrupter()
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signo, interrupt)
    # Orphans of killed programs, and engines, come to us to be stopped; and we stop when `make` is killed.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if "MAKELEVEL" in os.environ:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    with only_one():
        platform = Platform()
        code = 0
        try:
            try:
                platform.start()
                platform.keep_running()
            except KeyboardInterrupt:
                say("\nStopping; a second Ctrl-C kills …")
            except (RunError, ClusterError, OSError) as error:
                say(f"make run: {error}")
                code = 1
            platform.stop()
        except KeyboardInterrupt:
            say("Killing everything")
            code = 1
        finally:
            for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signo, signal.SIG_IGN)
            platform.kill()
    return code


def reset() -> int:
    """Stop the run that holds the lock, if any, and remove .dev."""
    if not DEV.exists():
        return 0
    with (DEV / "lock").open("a+") as file:
        until = time.monotonic() + GRACE + 30
        told = None
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever holds the lock has written its number here, and is alive.
                file.seek(0)
                holder = file.read().strip()
                if holder and told != holder:
                    say(f"Stopping the running platform (process {holder})")
                    os.kill(int(holder), signal.SIGTERM)
                    told = holder
                if time.monotonic() > until:
                    say(f"make reset: process {holder} does not stop")
                    return 1
                time.sleep(0.1)
        Cluster(DEV / "postgres").destroy()
        shutil.rmtree(DEV)
    say("Forgotten: .dev is gone")
    return 0


def main(arguments: list[str]) -> int:
    try:
        if not arguments:
            return run()
        if arguments == ["reset"]:
            return reset()
    except KeyboardInterrupt:
        return 1
    except (RunError, ClusterError) as error:
        say(f"make {arguments[0] if arguments else 'run'}: {error}")
        return 1
    say("usage: python -m dev.run [reset]")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
