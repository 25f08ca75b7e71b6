"""Real programs for tests: a pytest plugin beside tests.postgres.

A test asks for `api`, the HTTP program over its own `database`; or, where it needs nothing for itself, for
`shared_api`, which one worker of the run starts once; or starts any of the programs with `start_program`. Every
answer that comes through `client` is held to app/openapi/openapi.yaml, every line that a program logs to the form
of our logs, and at the end of the run no line may hold a secret that a test knew (`note_secret`).

After each test that used a database of these fixtures, the view backend.invariants must be empty.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import psycopg
import pytest

from dev import geo_sample
from dev.cluster import Cluster
from tests.contract.document import basic, document
from tests.postgres import Database

ROOT = Path(__file__).resolve().parent.parent

ADMIN = "root"

T = TypeVar("T")


# -- what no log may hold

_secrets: set[str] = set()
_logs: list[Path] = []


def note_secret(*texts: str) -> None:
    """Remember codes, keys, tokens, passwords and addresses: none may be in any line that a program writes."""
    _secrets.update(texts)


def fresh_secret(length: int = 24) -> str:
    """Return a new secret that is noted."""
    made = secrets.token_urlsafe(length)
    note_secret(made)
    return made


_BORING = re.compile(r"\(?pid:? ?\d+\)?|\(\d+\)")


def _texts(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and key != "ts":
        # gunicorn tells process ids, which may well be somebody's six digits.
        yield _BORING.sub("", value)


def leaks(line: str) -> list[str]:
    """Return the noted secrets that a line holds; a login code counts only where it stands by itself."""
    try:
        texts = list(_texts(json.loads(line)))
    except ValueError:
        texts = [line]
    whole = "\n".join(texts)
    found = [word for word in re.findall(r"(?<![\w.])[0-9]{6}(?![\w.])", whole) if word in _secrets]
    # Thousands of addresses and keys: only a line with the sign that they all have needs a closer look.
    signs = {sign for sign in "@=" if sign in whole}
    return found + [s for s in _secrets if len(s) > 6 and (not (sign := _sign(s)) or sign in signs) and s in whole]


def _sign(secret: str) -> str:
    return "@" if "@" in secret else "=" if secret.endswith("=") else ""


_REQUIRED = ("ts", "level", "caller", "service", "msg")


def line_problems(line: str) -> list[str]:
    """Return what is wrong with the form of one line of a program's standard output."""
    try:
        value = json.loads(line)
    except ValueError:
        return ["is not JSON"]
    if not isinstance(value, dict):
        return ["is not an object"]
    problems = [f"has no {name}" for name in _REQUIRED if not value.get(name)]
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(value.get("ts"))):
        problems.append("has a ts that is not RFC 3339 in UTC")
    if value.get("level") not in ("debug", "info", "warn", "error"):
        problems.append("has a level that is none of ours")
    if value.get("msg") == "request":
        problems += [
            f"is about a request and has no {n}" for n in ("request_id", "otel_trace_id", "otel_span_id") if not value.get(n)
        ]
    return problems


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log() -> Iterator[None]:
    """At the end of the run: no line of any program holds a secret that a test knew."""
    yield
    found = {
        f"{path.name}: a {'code' if len(secret) == 6 else 'secret'} in {line[:400]!r}"
        for path in _logs
        if path.exists()
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n")
        for secret in leaks(line)
    }
    assert not found, "\n".join(sorted(found))


# -- programs


def until(met: Callable[[], T], timeout: float = 20, pause: float = 0.01) -> T:
    """Wait for something that is true and return it."""
    deadline = time.monotonic() + timeout
    while not (found := met()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
    return found


class Program:
    """A program of ours that runs, or has run. Its two outputs go to files; it dies with this process, however that ends."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.environment = dict(environment)
        self.log = log
        self.error_log = log.with_suffix(".stderr")
        _logs.extend((self.log, self.error_log))
        # The parent may have died before the signal was asked for: then the shell already has another one.
        mortal = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BACKEND_", "OTEL_"))}
        with self.log.open("ab") as output, self.error_log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*mortal, *command],
                cwd=ROOT,
                env=inherited | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def raw_lines(self) -> list[str]:
        """Return the whole lines that it has written to standard output so far."""
        return self.log.read_text(encoding="utf-8").split("\n")[:-1]

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the lines that it has logged so far."""
        return [json.loads(line) for line in self.raw_lines()]

    def logged(self, text: str) -> list[dict[str, Any]]:
        """Return the lines whose message contains a text."""
        return [line for line in self.log_lines() if text in line["msg"]]

    def errors(self) -> str:
        """Return what it has written to standard error."""
        return self.error_log.read_text(encoding="utf-8")

    def wait(self, timeout: float = 30) -> int:
        """Wait for its end and return the exit status."""
        return self.process.wait(timeout)

    def stop(self, timeout: float = 30) -> int:
        """Ask it to end (SIGTERM) and return the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def check_lines(self) -> None:
        """Fail if a line on standard output is not of the form of our logs."""
        problems = [f"{line!r} {p}" for line in self.raw_lines() for p in line_problems(line)]
        assert not problems, "\n".join(problems)

    def close(self) -> None:
        self.stop()


class Api(Program):
    """The HTTP program; `client` asks it and holds every answer to the contract."""

    _client: httpx.Client | None = None
    _url: str | None = None

    @property
    def url(self) -> str:
        """Where it listens; waits until it says so."""
        if self._url is None:
            line = until(lambda: self.process.poll() is not None or self.logged("Listening at"))
            assert isinstance(line, list), f"the api has ended: {self.errors()}{self.raw_lines()}"
            found = re.search(r"http://[0-9.]+:[0-9]+", line[0]["msg"])
            assert found is not None
            self._url = found[0]
        return self._url

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    @property
    def client(self) -> httpx.Client:
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, **options: Any) -> httpx.Client:
        """Return a client with connections of its own; whoever asks for it closes it."""
        hooks = {"response": [check_answer]}
        return httpx.Client(base_url=self.url, event_hooks=hooks, timeout=30, **options)

    @property
    def internal(self) -> dict[str, str]:
        """The header of the gateway itself."""
        return {"Authorization": f"Bearer {self.environment['BACKEND_INTERNAL_TOKEN']}"}

    @property
    def admin(self) -> dict[str, str]:
        """The header of the first administrator."""
        return basic(ADMIN, self.environment["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"])

    def wait_ready(self) -> Api:
        """Wait until every check of /readyz is well."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            until(lambda: client.get("/readyz").status_code == 200)
        return self

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        super().close()


def check_answer(response: httpx.Response) -> None:
    """Fail unless an answer is one that the contract describes."""
    response.read()
    path = response.request.url.raw_path.decode().partition("?")[0]
    problems = list(
        document().answer_problems(response.request.method, path, response.status_code, response.headers, response.content)
    )
    assert not problems, "\n".join(problems)


class StartProgram(Protocol):
    """Starts programs; each is ended with the fixture."""

    def __call__(self, name: str, database: Database, **environment: str) -> Program:
        """Start `python -m app NAME` over a database; `environment` comes on top of what every program is told, an empty
        value takes away."""

    def environment(self, database: Database, **environment: str) -> dict[str, str]:
        """Return what a program over a database is told."""

    def run(self, name: str, command: list[str], environment: Mapping[str, str]) -> Program:
        """Start another command as the program NAME."""


def _base_environment(database: Database, geo: Path, state: Path) -> dict[str, str]:
    return {
        **{f"BACKEND_POSTGRES_DSN_{n.upper()}": database.dsn(f"galaxy_{n}") for n in ("api", "push", "worker", "deploy")},
        "BACKEND_HTTP_LISTEN_ADDR": "127.0.0.1:0",
        "BACKEND_HTTP_WORKERS": "1",
        "BACKEND_HTTP_THREADS": "4",
        "BACKEND_GRPC_PUSH_LISTEN_ADDR": "127.0.0.1:0",
        "BACKEND_SMTP_HOST": "127.0.0.1",
        "BACKEND_SMTP_PORT": "9",
        "BACKEND_SMTP_FROM": "noreply@galaxy.example",
        "BACKEND_SMTP_TLS_MODE": "none",
        "BACKEND_RUNTIME_DRIVER": "process",
        # Where no job program runs, games wait for their engines for ever.
        "BACKEND_RUNTIME_JOB_QUEUE_SIZE": "100000",
        "BACKEND_GAME_STATE_ROOT": str(state),
        "BACKEND_GEOIP_DB_PATH": str(geo),
        "BACKEND_OTEL_TRACES_EXPORTER": "none",
        "BACKEND_OTEL_METRICS_EXPORTER": "none",
        "BACKEND_INTERNAL_TOKEN": fresh_secret(),
        "BACKEND_AUTH_PEPPER": fresh_secret(),
        "BACKEND_ADMIN_BOOTSTRAP_USER": ADMIN,
        "BACKEND_ADMIN_BOOTSTRAP_PASSWORD": fresh_secret(),
    }


class _Starter:
    """Makes programs, and ends those that are left."""

    def __init__(self, directory: Path, geo: Path) -> None:
        self._directory = directory
        self._geo = geo
        self.programs: list[Program] = []

    def __call__(self, name: str, database: Database, **environment: str) -> Program:
        return self.run(name, [sys.executable, "-m", "app", name], self.environment(database, **environment))

    def environment(self, database: Database, **environment: str) -> dict[str, str]:
        whole = _base_environment(database, self._geo, self._directory / "games") | environment
        return {name: value for name, value in whole.items() if value}

    def run(self, name: str, command: list[str], environment: Mapping[str, str]) -> Program:
        log = self._directory / f"{name}-{len(self.programs)}-{secrets.token_hex(4)}.log"
        kind = Api if name in ("api", "serve") else Program
        self.programs.append(kind(command, environment, log))
        return self.programs[-1]

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for program in self.programs:
                stack.callback(program.check_lines)
            for program in self.programs:
                stack.callback(program.close)
            # Together, since each takes its time.
            for program in self.programs:
                if program.process.poll() is None:
                    program.process.terminate()


@pytest.fixture(scope="session")
def geo_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GeoLite2 Country file that knows the addresses for documentation (dev.geo_sample)."""
    path = tmp_path_factory.mktemp("geo") / "geo.mmdb"
    geo_sample.write(path)
    return path


@pytest.fixture
def start_program(tmp_path: Path, geo_database: Path) -> Iterator[_Starter]:
    """Start `python -m app NAME` over a database; every one is ended after the test."""
    starter = _Starter(tmp_path, geo_database)
    yield starter
    starter.close()


@pytest.fixture
def start_api(start_program: _Starter) -> Callable[..., Api]:
    """Start the HTTP program over a database, and wait until it is ready."""

    def start(database: Database, **environment: str) -> Api:
        api = start_program("api", database, **environment)
        assert isinstance(api, Api)
        return api.wait_ready()

    return start


@pytest.fixture
def api(database: Database, start_api: Callable[..., Api]) -> Api:
    """The HTTP program over the test's own database: one process with four threads."""
    return start_api(database)


@pytest.fixture(scope="session")
def session_starter(tmp_path_factory: pytest.TempPathFactory, geo_database: Path) -> Iterator[_Starter]:
    """Starts programs that stay until the end of the run."""
    starter = _Starter(tmp_path_factory.mktemp("programs"), geo_database)
    yield starter
    starter.close()


@contextlib.contextmanager
def session_database(cluster: Cluster, template: str, name: str) -> Iterator[Database]:
    """A database for a fixture that lives longer than a test."""
    made = Database(cluster, f"{name}_{secrets.token_hex(6)}")
    cluster.create_database(made.name, template)
    try:
        yield made
    finally:
        made.drop()


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster, template_database: str) -> Iterator[Database]:
    """The database of `shared_api`; a test must leave alone what it did not make."""
    with session_database(cluster, template_database, "shared") as made:
        with made.connect() as connection:
            # Nobody starts the engines of these games: however many wait, there is room for one more.
            connection.execute("UPDATE settings SET default_value = max_value WHERE setting_name = 'runtime_job_queue_size'")
        yield made


@pytest.fixture(scope="session")
def shared_api(shared_database: Database, session_starter: _Starter) -> Api:
    """An HTTP program for every test that needs nothing for itself."""
    # Some tests wait until an engine has been given up.
    patience = {"BACKEND_ENGINE_CALL_TIMEOUT": "2s", "BACKEND_ENGINE_PROBE_TIMEOUT": "2s"}
    api = session_starter("api", shared_database, **patience)
    assert isinstance(api, Api)
    return api.wait_ready()


@pytest.fixture(scope="session")
def four_apis(shared_database: Database, session_starter: _Starter) -> list[Api]:
    """Four HTTP programs of one process each, all alike, over the shared database. Tests that use them belong together:
    mark them with `xdist_group("four")`."""
    secrets_of_all = {name: fresh_secret() for name in ("BACKEND_INTERNAL_TOKEN", "BACKEND_AUTH_PEPPER")}
    # The first administrator is that of `shared_api`, whichever starts first.
    nobody = {"BACKEND_ADMIN_BOOTSTRAP_USER": "", "BACKEND_ADMIN_BOOTSTRAP_PASSWORD": ""}
    apis = [session_starter("api", shared_database, BACKEND_HTTP_THREADS="6", **secrets_of_all, **nobody) for _ in range(4)]
    return [api.wait_ready() for api in apis if isinstance(api, Api)]


_violations: set[tuple[str, str, str]] = set()


@pytest.fixture(autouse=True)
def invariants_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that used a database: what must always hold does."""
    # Asked for now, so that it is still there afterwards.
    used = [request.getfixturevalue(n) for n in ("database", "shared_database") if n in request.fixturenames]
    yield
    for database in used:
        with database.borrow() as connection:
            query = "SELECT invariant, object_id, details FROM backend.invariants"
            # Planning it takes longer than running it.
            found = set(connection.execute(query, prepare=True).fetchall())
        # In a shared database a violation stays, and is the fault of one test only.
        new = found - _violations
        _violations.update(new)
        assert not new, new


# -- people


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in."""

    email: str
    user_id: str
    device_session_id: str
    public_key: str

    @property
    def header(self) -> dict[str, str]:
        return {"X-User-ID": self.user_id}


def new_email(name: str = "someone") -> str:
    """Return an address that nobody has."""
    email = f"{name}-{secrets.token_hex(5)}@example.org"
    note_secret(email)
    return email


def new_key() -> str:
    """Return an Ed25519 public key as the contract wants it."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    note_secret(key)
    return key


def read_code(database: Database, challenge_id: str) -> str:
    """Return the login code of a challenge, as its mail in the outbox says it."""
    with database.cluster.connect(database.name) as connection:
        row = connection.execute(
            """
            SELECT p.body_text FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id)
             WHERE d.template_id = 'auth.login_code' AND d.idempotency_key = %s
            """,
            [challenge_id],
        ).fetchone()
    assert row is not None, "no mail was enqueued for this challenge"
    found = re.search(r"\b[0-9]{6}\b", row[0])
    assert found is not None
    note_secret(found[0])
    return found[0]


def wrong_code(code: str) -> str:
    """Return a code that is another one."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


def send_code(api: Api, email: str, **body: str) -> str:
    """Ask for a code and return the challenge's id."""
    answer = api.client.post("/api/v1/public/auth/send-email-code", json={"email": email, **body})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["challenge_id"])


def confirmation(challenge_id: str, code: str, **body: str) -> dict[str, str]:
    """Return the body that confirms a code."""
    whole = {"challenge_id": challenge_id, "code": code, "client_public_key": new_key(), "time_zone": "Europe/Berlin"}
    return whole | body


def confirm(api: Api, challenge_id: str, code: str, **body: str) -> httpx.Response:
    """Confirm a code, right or wrong."""
    return api.client.post("/api/v1/public/auth/confirm-email-code", json=confirmation(challenge_id, code, **body))


def sign_in(api: Api, database: Database, email: str | None = None, locale: str = "en", **headers: str) -> Person:
    """Sign somebody in with a mailed code; the account is made if the address is new."""
    email = email or new_email()
    challenge_id = send_code(api, email, locale=locale)
    body = confirmation(challenge_id, read_code(database, challenge_id))
    answer = api.client.post("/api/v1/public/auth/confirm-email-code", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    session_id = str(answer.json()["device_session_id"])
    session = api.client.get(f"/api/v1/internal/sessions/{session_id}", headers=api.internal).json()
    return Person(email, session["user_id"], session_id, body["client_public_key"])


def add_session(connection: psycopg.Connection[Any], user_id: str) -> str:
    """Open one more session of a person, past the API."""
    row = connection.execute(
        """
        INSERT INTO backend.device_sessions (user_id, kind, client_public_key)
        VALUES (%s, 'key', sha256(gen_random_uuid()::text::bytea)) RETURNING device_session_id
        """,
        [user_id],
    ).fetchone()
    assert row is not None
    return str(row[0])


def sanction(connection: psycopg.Connection[Any], user_id: str, code: str, expires_in: str | None = None) -> None:
    """Put a sanction in force, past the API, with what follows from it."""
    # Also one that is over already.
    connection.execute(
        """
        SELECT backend.sanction_apply(user_id, %s, 'a test', 'test', backend.now() + %s::interval)
          FROM backend.accounts WHERE user_id = %s FOR NO KEY UPDATE
        """,
        [code, expires_in, user_id],
    )


def delete_account(connection: psycopg.Connection[Any], user_id: str) -> None:
    """Delete an account, past the API."""
    connection.execute(
        "SELECT backend.account_delete(user_id) FROM backend.accounts WHERE user_id = %s AND deleted_at IS NULL"
        " FOR NO KEY UPDATE",
        [user_id],
    )


def travel(connection: psycopg.Connection[Any], interval: str) -> None:
    """Move the platform's clock on."""
    connection.execute("UPDATE backend.clock SET clock_offset = clock_offset + %s::interval", [interval])


def simultaneously(count: int, work: Callable[[int], T]) -> list[T]:
    """Run `work(0)` … `work(count - 1)` at once, each in a thread of its own, and return what they return."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))
