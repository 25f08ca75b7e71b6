"""How to ask for the operations of games, seats, invites, engines and turns, rightly and wrongly: a part of `requests`.

A game is made past HTTP, by the functions that HTTP and the job program call themselves. What is asked of an engine is
answered by a development engine, a process of its own that is shared: a game takes two of its races.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from dev.engine.engine import MOST_RACES
from dev.engine.process import EngineProcess
from tests.contract.document import Operation, document
from tests.services import ADMIN, Person, note_secret

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

_TAGS = ("games", "memberships", "invites", "applications", "admin_games", "turns", "engines", "engine_versions", "runtimes")
OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in _TAGS)
TURNS = frozenset(o.name for o in document().operations if o.node["tags"] == ["turns"])

# What a function's comment must name, since what it calls can raise it, and what this caller can never bring about: nobody sits,
# or was blocked, in a game that is just being made, and it has two seats or more.
# A seat that is taken ends what was applied for.
UNREACHABLE = frozenset(
    {
        ("game_create", "already_member"),
        ("game_create", "eligibility_denied"),
        ("game_create", "game_full"),
        ("application_approve", "already_member"),
        ("admin_application_approve", "already_member"),
    }
)

FAR = "2100-01-01T00:00:00Z"


# -- engines


class RudeEngine:
    """An HTTP server that does with each request whatever `answer` does: it gets the connection and what came."""

    def __init__(self, answer: Callable[[socket.socket, bytes], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.released = threading.Event()
        """Set at the end; who makes a caller wait waits for it."""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RudeEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._open.append(connection)
            data = b""
            while b"\r\n\r\n" not in data and (part := connection.recv(65536)):
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            found = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
            length = int(found[1]) if found else 0
            while len(body) < length and (part := connection.recv(65536)):
                body += part
            self.requests.append(head + b"\r\n\r\n" + body)
            self._answer(connection, head)

    def close(self) -> None:
        self.released.set()
        # A blocked accept() does not notice that its socket is closed.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def answer_of(status: int, body: bytes, *headers: str) -> bytes:
    """An answer as bytes."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(status: int, body: bytes, *headers: str) -> RudeEngine:
    """An engine that gives everybody the same answer."""
    whole = answer_of(status, body, *headers)
    return RudeEngine(lambda connection, _: connection.sendall(whole))


def silent() -> RudeEngine:
    """An engine that never answers."""
    made: list[RudeEngine] = []

    def answer(_connection: socket.socket, _head: bytes) -> None:
        made[0].released.wait()

    made.append(RudeEngine(answer))
    return made[0]


class Engines:
    """The engines of a run: development engines, whose races are handed out, and rude ones by name; started when asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._races: list[tuple[str, str]] = []
        self._rude: dict[str, RudeEngine] = {}

    def close(self) -> None:
        self._stack.close()

    def races(self, count: int) -> tuple[str, list[str]]:
        """Return an endpoint and races of the game there that nobody has been given yet."""
        if len(self._races) < count:
            engine = self._stack.enter_context(EngineProcess(self._directory / secrets.token_hex(4), last_turn=1000))
            names = [f"Kin {secrets.token_hex(6)}" for _ in range(MOST_RACES)]
            initialise(engine, names)
            self._races = [(engine.url, name) for name in names]
        taken, self._races = self._races[:count], self._races[count:]
        return taken[0][0], [name for _, name in taken]

    def forget(self) -> None:
        """Give out no more races of the present engine: its game is not in turn 0 any more."""
        self._races = []

    def rude(self, kind: str) -> str:
        """Return the endpoint of an engine that is `silent`, talks `garbage`, or is `refusing` everything with 400."""
        if kind not in self._rude:
            make: dict[str, Callable[[], RudeEngine]] = {
                "silent": silent,
                "garbage": lambda: always(200, b"<html>"),
                "refusing": lambda: always(400, b'{"error": {"code": "invalid_order"}}'),
            }
            self._rude[kind] = self._stack.enter_context(make[kind]())
        return self._rude[kind].url


def initialise(engine: EngineProcess, races: list[str], game_id: str | None = None) -> None:
    """Tell an engine its game."""
    body = {"gameId": game_id or str(uuid.uuid4()), "races": [{"raceName": name} for name in races]}
    httpx.post(f"{engine.url}/api/v1/admin/init", json=body, trust_env=False).raise_for_status()


_engines: list[Engines] = []


def forget_engine() -> None:
    """The next game is played with another engine: the present one is not in turn 0 any more."""
    _engines[-1].forget()


@contextlib.contextmanager
def engines_in(directory: Path) -> Iterator[None]:
    """Have the engines of a run in a directory."""
    _engines.append(Engines(directory))
    try:
        yield
    finally:
        _engines.pop().close()


# -- games


@dataclass(frozen=True)
class Game:
    """A game of two, as far as it was brought; the guest has a seat once enrolment is open."""

    world: World
    game_id: str
    version: str
    owner: Person
    guest: Person
    races: tuple[str, str]
    """The owner's, the guest's."""

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of a door about this game."""
        with self.world.connect() as connection:
            return call(connection, function, *arguments)

    def execute(self, sql: str) -> None:
        """Change something past every rule; `%(game)s` is the game's id, `%(owner)s` and `%(guest)s` those of people."""
        with self.world.connect() as connection:
            connection.execute(
                sql,
                {"game": self.game_id, "owner": self.owner.user_id, "guest": self.guest.user_id, "version": self.version},
            )

    def invite(self, person: Person) -> str:
        """Give somebody an invite, past every rule; return its id."""
        with self.world.connect() as connection:
            row = connection.execute(
                "INSERT INTO invites (game_id, inviter_user_id, invited_user_id, expires_at)"
                " VALUES (%s, %s, %s, now() + '1 day') RETURNING invite_id",
                [self.game_id, self.owner.user_id, person.user_id],
            ).fetchone()
        assert row is not None
        return str(row[0])


def call(connection: psycopg.Connection[Any], function: str, *arguments: Any) -> Any:
    """Call a function; return the value, of a reply its body, of a row its first column."""
    column = "body" if function.endswith("_create") else "*"
    row = connection.execute(f"SELECT {column} FROM {function}({', '.join(['%s'] * len(arguments))})", arguments).fetchone()
    return None if row is None else row[0]


def new_race() -> str:
    """A race name that nobody has."""
    return f"Folk {secrets.token_hex(6)}"


def new_version(connection: psycopg.Connection[Any]) -> str:
    """Register an engine version; return it."""
    version = f"0.{secrets.randbelow(10**9)}.{secrets.randbelow(10**9)}"
    connection.execute("INSERT INTO engine_versions (version, image_ref) VALUES (%s, %s)", [version, f"dev-engine:{version}"])
    return version


def limit(connection: psycopg.Connection[Any], user_id: str, code: str, value: int) -> None:
    """Give a person a number of their own, past the API."""
    connection.execute(
        """
        WITH record AS (
            INSERT INTO backend.limit_records (user_id, code, action, value, reason, actor)
            VALUES (%s, %s, 'apply', %s, 'a test', 'test') RETURNING *)
        INSERT INTO backend.limit_active (user_id, code, limit_record_id, value)
        SELECT user_id, code, limit_record_id, value FROM record ON CONFLICT DO NOTHING
        """,
        [user_id, code, value],
    )


def creation(version: str, **body: Any) -> dict[str, Any]:
    """The body that creates a game."""
    whole = {
        "game_name": "Friday night",
        "description": "Two\nlines",
        "min_players": 2,
        "max_players": 3,
        "enrollment_ends_at": FAR,
        "turn_schedule": "0 18 * * *",
        "target_engine_version": version,
        "race_name": new_race(),
    }
    return whole | body


# In the order in which a game gets there.
_WAY = ("draft", "enrollment_open", "ready_to_start", "starting", "running")


def make_game(
    world: World,
    owner: Person | None = None,
    status: str = "draft",
    *,
    guest: Person | None = None,
    endpoint: str | None = None,
    **body: Any,
) -> Game:
    """Make a game and bring it to a status; a running one has an engine there, or else at races of the shared one."""
    owner, guest = owner or world.person(), guest or world.person()
    races = [new_race(), new_race()]
    is_started = status in ("running", "paused", "finished")
    if is_started and endpoint is None:
        endpoint, races = _engines[-1].races(2)
    with world.connect() as connection:
        for person in (owner, guest):
            limit(connection, person.user_id, "max_owned_private_games", 10_000)
            limit(connection, person.user_id, "max_active_memberships", 10_000)
        version = new_version(connection)
        made = call(connection, "api.game_create", owner.user_id, json.dumps(creation(version, race_name=races[0], **body)))
        game = Game(world, json.loads(made)["game_id"], version, owner, guest, (races[0], races[1]))
        way = _WAY[: _WAY.index({"paused": "running", "finished": "running", "start_failed": "starting"}.get(status, status)) + 1]
        if "enrollment_open" in way:
            call(connection, "api.game_open_enrollment", owner.user_id, game.game_id)
            invite_id = game.invite(guest)
            seat = json.dumps({"race_name": races[1]})
            # Who has asked for many that were not there is refused for a while.
            connection.execute("DELETE FROM invite_attempts WHERE user_id = %s", [guest.user_id])
            call(connection, "api.invite_redeem", guest.user_id, game.game_id, invite_id, seat, None)
        if "ready_to_start" in way:
            call(connection, "api.game_ready_to_start", owner.user_id, game.game_id)
        if "starting" in way:
            call(connection, "api.game_start", owner.user_id, game.game_id)
        if is_started:
            lease = call(connection, "worker.runtime_start_claim", game.game_id, 60)
            call(connection, "worker.runtime_started", game.game_id, lease, "container", endpoint, 0, players(game))
        if status == "start_failed":
            lease = call(connection, "worker.runtime_start_claim", game.game_id, 60)
            call(connection, "worker.runtime_start_failed", game.game_id, lease, "image_pull_failed", "a test")
        if status == "paused":
            call(connection, "api.game_pause", owner.user_id, game.game_id)
        if status == "finished":
            call(connection, "api.runtime_force_next_turn", ADMIN, game.game_id)
            lease = call(connection, "worker.turn_claim", game.game_id, 60)
            call(connection, "worker.turn_report", game.game_id, lease, 1, True, players(game))
    return game


def players(game: Game) -> str:
    """What an engine says of the races."""
    found = [{"id": str(uuid.uuid4()), "raceName": race, "planets": 1, "population": 100} for race in game.races]
    return json.dumps(found)


# -- the right request

# The status in which a game takes the operation; elsewhere any will do.
_STATUS = {
    "game_open_enrollment": "draft",
    "game_ready_to_start": "enrollment_open",
    "game_start": "ready_to_start",
    "game_retry_start": "start_failed",
    "game_pause": "running",
    "game_resume": "paused",
    "game_cancel": "ready_to_start",
    "invite_create": "enrollment_open",
    "invite_redeem": "enrollment_open",
    "invite_redeem_by_code": "enrollment_open",
    "runtime_get": "running",
    "runtime_list": "running",
    "runtime_force_next_turn": "running",
    "runtime_restart": "running",
    "runtime_patch": "paused",
    "runtime_logs_take": "running",
    "runtime_logs_get": "running",
    **dict.fromkeys(TURNS, "running"),
}
_INVITED = ("invite_redeem", "invite_redeem_by_code")


def _new_code() -> str:
    """A code of an invite that nobody has been given; nothing in it is read as something else."""
    code = "".join(secrets.choice("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for _ in range(26))
    note_secret(code, code.lower())
    return code


def _is_well(world: World, person: Person) -> bool:
    with world.connect() as connection:
        try:
            connection.execute("SELECT account_require(%s)", [person.user_id])
        except psycopg.Error:
            return False
    return True


def build(world: World, operation: Operation, person: Person, **changes: Any) -> tuple[Game, Mapping[str, str], Any]:
    """Make a game in which `person` may do the operation; return it, the values of the path, and a right body."""
    from tests.contract import lobby

    game_changes: dict[str, Any] = {"status": _STATUS.get(operation.name, "draft"), **changes}
    # Whoever may do nothing at all is refused before anybody looks for the game.
    actor = person if _is_well(world, person) else world.person()
    if operation.name in lobby.OPERATIONS:
        return lobby.build(world, operation, actor, **changes)
    owner = None if operation.name in _INVITED else actor
    game = make_game(world, owner, **game_changes)
    values = {"game_id": game.game_id, "version": game.version, "turn": "0", "invite_id": str(uuid.uuid4())}
    if operation.name == "runtime_logs_get":
        game.call("api.runtime_logs_take", ADMIN, game.game_id)
    if operation.name == "invite_redeem":
        values["invite_id"] = game.invite(actor)
    return game, values, _body(game, operation) if operation.has_body else None


def _body(game: Game, operation: Operation) -> Any:
    match operation.name:
        case "game_create":
            # The one that owns a game already may own one more.
            with game.world.connect() as connection:
                return creation(new_version(connection))
        case "invite_create":
            return {"expires_at": FAR}
        case "invite_redeem":
            return {"race_name": new_race()}
        case "invite_redeem_by_code":
            code = _new_code()
            digest = hashlib.sha256(code.encode()).digest()
            game.call("api.invite_create", game.owner.user_id, game.game_id, "{}", code, digest)
            return {"code": code.lower(), "race_name": new_race()}
        case "runtime_patch":
            return {"version": game.version}
        case "engine_version_create":
            version = f"0.{secrets.randbelow(10**9)}.{secrets.randbelow(10**9)}"
            return {"version": version, "image_ref": f"dev-engine:{version}"}
        case "engine_version_update":
            return {"image_ref": f"dev-engine:{game.version}", "enabled": True}
        case "engine_commands":
            return {"commands": [{"command": "vote", "for": game.races[1]}]}
        case "engine_orders_store":
            return {"turn": 0, "commands": []}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


def right(world: World, operation: Operation, person: Person, body: Any = None, **changes: Any) -> Request:
    """A request that the operation accepts, in the name of `person`; `changes` are for make_game."""
    _, request = game_and_request(world, operation, person, body, **changes)
    return request


def game_and_request(
    world: World, operation: Operation, person: Person, body: Any = None, **changes: Any
) -> tuple[Game, Request]:
    from tests.contract import requests

    game, values, right_body = build(world, operation, person, **changes)
    return game, requests.Request(
        operation.method,
        operation.path.format_map(values),
        body if body is not None else right_body,
        query={"turn": "0"} if operation.name == "engine_orders_get" else {},
        headers=requests.identity(world, operation, person),
    )


def known_values(world: World, operation: Operation, person: Person) -> Mapping[str, str]:
    """What a made-up request's path is given, so that something is there: one game for each operation and person."""
    if operation.name not in OPERATIONS:
        return {}
    key = (world.database.name, operation.name, person.user_id)
    if key not in _known:
        _, _known[key], _ = build(world, operation, person)
    return _known[key]


_known: dict[tuple[str, str, str], Mapping[str, str]] = {}


# -- wrong ones


def in_game(change: Callable[[Game], None] = lambda game: None, **changes: Any) -> Make:
    """A right request to a game with which something is the matter."""

    def make(world: World, operation: Operation) -> Request:
        game, request = game_and_request(world, operation, world.person(), **changes)
        change(game)
        return request

    return make


def sql(statement: str, **changes: Any) -> Make:
    return in_game(lambda game: game.execute(statement), **changes)


def as_another(who: Callable[[Game], Person]) -> Make:
    """A right request, in the name of somebody else."""

    def make(world: World, operation: Operation) -> Request:
        game, request = game_and_request(world, operation, world.person())
        return replace(request, headers=who(game).header)

    return make


def invitee(game: Game) -> Person:
    """Somebody who may see the game and nothing more."""
    person = game.world.person()
    game.execute(
        "INSERT INTO invites (game_id, inviter_user_id, invited_user_id, expires_at)"
        f" SELECT game_id, owner_user_id, '{person.user_id}', now() + '1 day' FROM games"
        " WHERE game_id = %(game)s AND status IN ('draft', 'enrollment_open')"
    )
    return person


def _member_or_invitee(game: Game) -> Person:
    """Somebody who may see the game, and does not own it."""
    with game.world.connect() as connection:
        row = connection.execute(
            "SELECT FROM memberships WHERE game_id = %s AND user_id = %s", [game.game_id, game.guest.user_id]
        ).fetchone()
    return game.guest if row is not None else invitee(game)


def with_body(**body: Any) -> Make:
    """A right request, but for some fields of its body."""

    def make(world: World, operation: Operation) -> Request:
        _, request = game_and_request(world, operation, world.person())
        return replace(request, body={**request.body, **body})

    return make


def elsewhere(name: str, value: str | None = None) -> Make:
    """A right request, but about something that is not there."""

    def make(world: World, operation: Operation) -> Request:
        _, values, body = build(world, operation, world.person())
        request = right(world, operation, world.person(), body)
        return replace(request, path=operation.path.format_map({**values, name: value or str(uuid.uuid4())}))

    return make


def _not_redeemable(world: World, operation: Operation) -> Request:
    if operation.name == "invite_redeem_by_code":
        return with_body(code="0" * 26)(world, operation)
    return elsewhere("invite_id")(world, operation)


def _redeem_as(who: Callable[[Game], None]) -> Make:
    """The guest of the game redeems a code, after something has happened."""

    def make(world: World, operation: Operation) -> Request:
        person = world.person()
        game, request = game_and_request(world, operation, person, guest=person)
        who(game)
        return request

    return make


def _invite(who: Callable[[Game], Person]) -> Make:
    def make(world: World, operation: Operation) -> Request:
        game, request = game_and_request(world, operation, world.person())
        return replace(request, body={"invited_user_id": who(game).user_id})

    return make


def leave(status: str) -> Callable[[Game], None]:
    return lambda game: game.execute(
        "WITH gone AS (UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = %(guest)s)"
        f" UPDATE memberships SET status = '{status}', ended_at = now() WHERE game_id = %(game)s AND user_id = %(guest)s"
    )


def _draft_with_invite(world: World, operation: Operation) -> Request:
    return in_game(status="draft")(world, operation)


def _name_taken(world: World, operation: Operation) -> Request:
    taken = make_game(world, status="draft").races[0]
    # One that people would take for it is taken as well.
    return with_body(race_name=taken.upper().replace(" ", "-"))(world, operation)


def no_more(code: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        _, request = game_and_request(world, operation, world.person())
        with world.connect() as connection:
            connection.execute("DELETE FROM limit_active WHERE user_id = %s AND code = %s", [request.headers["X-User-ID"], code])
            limit(connection, request.headers["X-User-ID"], code, 0)
        return request

    return make


def no_version(world: World, operation: Operation) -> Request:
    _, request = game_and_request(world, operation, world.person())
    with world.connect() as connection:
        connection.execute("UPDATE engine_versions SET enabled = false")
    return replace(request, body={k: v for k, v in request.body.items() if k != "target_engine_version"})


def _version_again(world: World, operation: Operation) -> Request:
    with world.connect() as connection:
        return with_body(version=new_version(connection))(world, operation)


def _incompatible_version(world: World, operation: Operation) -> Request:
    with world.connect() as connection:
        return with_body(version=new_version(connection))(world, operation)


def _rude(kind: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        return right(world, operation, world.person(), endpoint=_engines[-1].rude(kind))

    return make


CAUSES: Mapping[str | tuple[str, str], Make] = {
    "game_not_found": elsewhere("game_id"),
    "engine_version_not_found": elsewhere("version", "9.9.9-nobody"),
    "runtime_not_found": in_game(status="draft"),
    "invite_not_found": _not_redeemable,
    "forbidden": as_another(_member_or_invitee),
    ("game_history_list", "forbidden"): as_another(invitee),
    ("membership_list", "forbidden"): as_another(invitee),
    "invalid_transition": in_game(status="starting"),
    ("invite_redeem", "invalid_transition"): _draft_with_invite,
    ("invite_redeem_by_code", "invalid_transition"): _draft_with_invite,
    "game_not_running": in_game(status="ready_to_start"),
    ("runtime_restart", "invalid_transition"): sql("UPDATE runtime_records SET status = 'starting' WHERE game_id = %(game)s"),
    ("runtime_patch", "invalid_transition"): sql("UPDATE runtime_records SET status = 'starting' WHERE game_id = %(game)s"),
    "engine_version_incompatible": _incompatible_version,
    ("runtime_patch", "engine_version_unavailable"): with_body(version="9.9.9-nobody"),
    "runtime_logs_not_found": sql("DELETE FROM runtime_logs WHERE game_id = %(game)s"),
    "turn_in_progress": sql(
        "UPDATE runtime_records SET turn_requested_at = now(), next_attempt_at = 'infinity' WHERE game_id = %(game)s"
    ),
    "already_member": _redeem_as(lambda game: None),
    "engine_version_exists": _version_again,
    "engine_version_unavailable": sql("UPDATE engine_versions SET enabled = false WHERE version = %(version)s"),
    ("game_create", "engine_version_unavailable"): no_version,
    "enrollment_ended": sql("UPDATE games SET enrollment_ends_at = now() WHERE game_id = %(game)s"),
    "not_enough_members": in_game(min_players=3),
    ("game_start", "not_enough_members"): in_game(lambda game: leave("removed")(game)),
    ("game_retry_start", "not_enough_members"): in_game(lambda game: leave("removed")(game)),
    "engine_not_healthy": sql("UPDATE runtime_records SET status = 'engine_unreachable' WHERE game_id = %(game)s"),
    "eligibility_denied": _redeem_as(leave("blocked")),
    ("invite_create", "already_member"): _invite(lambda game: game.guest),
    ("invite_create", "already_invited"): _invite(invitee),
    ("invite_create", "eligibility_denied"): with_body(invited_user_id=str(uuid.uuid4())),
    "game_full": in_game(max_players=2),
    "invalid_name": with_body(race_name="Zörg_!"),
    "name_taken": _name_taken,
    ("game_create", "limit_reached"): no_more("max_owned_private_games"),
    "limit_reached": no_more("max_active_memberships"),
    "engine_rejected": _rude("refusing"),
    "engine_error": _rude("garbage"),
    "engine_timeout": _rude("silent"),
}
