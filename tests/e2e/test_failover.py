"""The primary dies in the middle of everything, and its synchronous standby takes over: nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.failover import Pair, pair
from tests.push import Gateway, settled
from tests.services import Api, Person, StartProgram, add_session, sign_in, until
from tests.smtp_relay import FaultyRelay, delivery, enqueue_many

_WRITERS = 4


class _Load:
    """Writers that do each thing until it is acknowledged, and remember what was; `answers` are all that came."""

    def __init__(self, api: Api, owner: Person, sessions: list[str]) -> None:
        self.revoked: list[str] = []
        self.games: dict[str, str] = {}  # by the key that each was asked for with
        self.answers: list[int] = []
        self._api = api
        self._owner = owner
        self._sessions = iter(sessions)
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._writers = [self._pool.submit(self._write) for _ in range(_WRITERS)]

    def end(self) -> None:
        self._over.set()
        for writer in self._writers:
            writer.result(60)
        self._pool.shutdown()

    def _write(self) -> None:
        with self._api.new_client() as client:
            while not self._over.is_set():
                number = next(self._numbers)
                if number % 5 == 0:
                    self._make_game(client, number)
                else:
                    session_id = next(self._sessions)
                    path = f"/api/v1/internal/sessions/{session_id}/revoke"
                    self._until_done(client, path, {"reason": "logout"}, self._api.internal)
                    self.revoked.append(session_id)

    def _make_game(self, client: httpx.Client, number: int) -> None:
        key = str(uuid.uuid4())
        body = {
            "game_name": f"Game {number}",
            "min_players": 2,
            "max_players": 2,
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "turn_schedule": "0 0 1 1 *",
        }
        headers = {**self._owner.header, "Idempotency-Key": key}
        self.games[key] = self._until_done(client, "/api/v1/user/lobby/games", body, headers).json()["game_id"]

    def _until_done(self, client: httpx.Client, path: str, body: object, headers: dict[str, str]) -> httpx.Response:
        while True:
            answer = client.post(path, json=body, headers=headers)
            self.answers.append(answer.status_code)
            if answer.is_success:
                return answer
            assert answer.status_code == 503, answer.text
            assert "Retry-After" in answer.headers


def _check(base: Pair, load: _Load, gateway: Gateway) -> None:
    with base.cluster.connect(base.name) as connection:
        settled(connection)
        kept = connection.execute("SELECT device_session_id::text FROM backend.device_sessions WHERE status = 'revoked'")
        assert {row[0] for row in kept} >= set(load.revoked)
        # A game for each key, and no other: nothing was done twice.
        games = connection.execute("SELECT game_id::text FROM backend.games")
        assert sorted(row[0] for row in games) == sorted(load.games.values())
        assert connection.execute("SELECT * FROM backend.invariants").fetchall() == []
    until(lambda: {e.session_invalidation.device_session_id for e in list(gateway.events)} >= set(load.revoked))
    cursors = gateway.cursors()
    assert cursors == sorted(set(cursors))
    ids = [e.session_invalidation.device_session_id for e in gateway.events if e.HasField("session_invalidation")]
    assert len(ids) == len(set(ids))
    assert (gateway.error, gateway.client.gaps) == (None, 0)


def test_everything_acknowledged_is_on_the_new_primary_and_the_stream_goes_on_exactly(start_program: StartProgram) -> None:
    with pair("failover") as base, FaultyRelay() as relay:
        mail = {"BACKEND_SMTP_PORT": str(relay.port), "BACKEND_MAIL_WORKER_INTERVAL": "1s"}
        api = start_program("api", base, **mail)
        push = start_program("push", base, BACKEND_INTERNAL_TOKEN=api.environment["BACKEND_INTERNAL_TOKEN"])
        assert isinstance(api, Api)
        api.wait_ready()
        owner = sign_in(api, base)
        worker = start_program("worker", base, **mail)
        with base.cluster.connect(base.name) as connection, connection.transaction():
            connection.execute("UPDATE backend.entitlement_tiers SET max_owned_private_games = 1000000")
            connection.execute("INSERT INTO backend.engine_versions (version, image_ref) VALUES ('1.0.0', 'dev-engine:1.0.0')")
            sessions = [add_session(connection, owner.user_id) for _ in range(6000)]
        until(lambda: push.logged("listening"))
        gateway = Gateway(
            f"127.0.0.1:{push.logged('listening')[0]['port']}", token=api.environment["BACKEND_INTERNAL_TOKEN"]
        ).start()
        load = _Load(api, owner, sessions)
        until(lambda: len(load.revoked) > 50)
        with base.cluster.connect(base.name) as connection:
            mails = enqueue_many(connection, 20)
        before = len(load.revoked)
        base.fail_over()
        until(lambda: len(load.revoked) > before + 50, 60)
        load.end()
        _check(base, load, gateway)
        with base.cluster.connect(base.name) as connection:
            until(lambda: all(delivery(connection, mail).status == "sent" for mail in mails), 60)
        assert {mail.message_id for mail in relay.received} >= {f"<{m}@galaxy.example>" for m in mails}
        gateway.close()
        assert api.wait_ready()
        for program in (api, push, worker):
            assert program.process.poll() is None
