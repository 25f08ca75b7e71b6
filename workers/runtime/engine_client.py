"""The calls of an engine that the job program makes; docs/engine.md has the contract.

An engine is somebody else's program: what it answers is checked before anything believes it, and an answer of any
size or slowness costs a bounded amount of memory and time.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NoReturn

import httpx

from app import telemetry

LARGEST_ANSWER = 1 << 20
MOST_PLAYERS = 256
LONGEST_TEXT = 128
_MOST_WHOLE = (1 << 31) - 1
# Beyond this a float no longer tells one whole number from the next.
_MOST_AMOUNT = 1 << 53


class EngineError(Exception):
    """A call of an engine that has not brought what it was for; the text is for logs and administrators."""


class EngineRejected(EngineError):
    """The engine refused: a 4xx. `body` is the JSON that it sent, or None."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"the engine refused with {status}")
        self.status = status
        self.body = body


class EngineFailed(EngineError):
    """The engine answered with a 5xx, with what the contract does not allow, or broke off; what it has done is not known."""


class EngineOfAnotherGame(EngineFailed):
    """It answers, and plays another game than the one that was asked for."""


class EngineNotInitialised(EngineFailed):
    """The engine has no game yet: the contract's 501."""


class EngineTimeout(EngineError):
    """The engine has not answered in time; what it has done, or will still do, is not known."""


class EngineUnreachable(EngineError):
    """There is no connection to the engine: it has done nothing."""


@dataclass(frozen=True)
class Player:
    """A race as the engine tells of it."""

    id: str
    race_name: str
    planets: int
    population: int | float
    votes: int | float
    extinct: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "raceName": self.race_name,
            "planets": self.planets,
            "population": self.population,
            "votes": self.votes,
            "extinct": self.extinct,
        }


@dataclass(frozen=True)
class State:
    """A game as the engine tells of it after a turn."""

    id: str
    turn: int
    stage: int | str
    finished: bool
    player: tuple[Player, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the state as in the contract, without what the engine added to that."""
        return {
            "id": self.id,
            "turn": self.turn,
            "stage": self.stage,
            "finished": self.finished,
            "player": [player.to_json() for player in self.player],
        }

    @classmethod
    def parse(cls, content: Any, game_id: str) -> State:
        """Check a state and return it; raises EngineFailed for another game's, and for what is no state."""
        fields = _object(content, "the state")
        state = cls(
            id=_game_id(fields),
            turn=_whole(fields, "turn"),
            stage=_stage(fields),
            finished=_bool(fields, "finished"),
            player=tuple(_player(item) for item in _list(fields, "player")),
        )
        if state.id != str(uuid.UUID(game_id)):
            raise EngineOfAnotherGame(f"it plays another game: {state.id}")
        for what, values in (("id", [p.id for p in state.player]), ("raceName", [p.race_name for p in state.player])):
            if len(set(values)) < len(values):
                _wrong(f"two players have one {what}")
        return state


class EngineClient:
    """Talks to all engines. One for a process: it belongs to one event loop, and is closed at the end.

    An `endpoint` is `http://host:port`. `call_timeout` is for what may take an engine long, `probe_timeout` for
    probes and reads; both in seconds, for the whole exchange. Every call raises EngineError.
    """

    def __init__(self, call_timeout: float, probe_timeout: float) -> None:
        self._call_timeout = call_timeout
        self._probe_timeout = probe_timeout
        self._http = httpx.AsyncClient(
            # A connection for each call: one that is kept may be closed by the engine just when it is used again, and
            # a turn cannot simply be asked for once more.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            # The whole exchange has one, in _call. Where nobody takes the connection, nothing has been asked for: to know that
            # leaves time.
            timeout=httpx.Timeout(None, connect=probe_timeout / 2),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            # A jar would take one engine's cookies to all the others of its host.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def healthz(self, endpoint: str) -> None:
        """Return if the engine is healthy."""
        status, _ = await self._call("GET", endpoint, "/healthz", self._probe_timeout)
        _expect(status, 200)

    async def init(self, endpoint: str, game_id: str, races: Sequence[str]) -> State:
        """Make the game; that it has been made already, with the same id, is a success."""
        body = {"gameId": game_id, "races": [{"raceName": name} for name in races]}
        try:
            status, content = await self._call("POST", endpoint, "/api/v1/admin/init", self._call_timeout, body)
        except EngineRejected as refused:
            if refused.status != 409:
                raise
            return await self.status(endpoint, game_id)
        _expect(status, 201)
        return State.parse(content, game_id)

    async def status(self, endpoint: str, game_id: str) -> State:
        """Return the state; raises EngineNotInitialised before `init`, EngineOfAnotherGame for another game's state."""
        status, content = await self._call("GET", endpoint, "/api/v1/admin/status", self._probe_timeout)
        _expect(status, 200)
        return State.parse(content, game_id)

    async def turn(self, endpoint: str, game_id: str) -> State:
        """Have the next turn generated. Not to be repeated without a look at `status`: each call is a turn more."""
        status, content = await self._call("PUT", endpoint, "/api/v1/admin/turn", self._call_timeout)
        _expect(status, 200)
        return State.parse(content, game_id)

    async def banish(self, endpoint: str, race_name: str) -> None:
        """Take a race out of play; EngineRejected with 404 if there is none of that name."""
        body = {"raceName": race_name}
        status, _ = await self._call("POST", endpoint, "/api/v1/admin/race/banish", self._call_timeout, body)
        _expect(status, 204)

    async def _call(self, method: str, endpoint: str, path: str, seconds: float, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON (None if it has none) of an answer that is not an error."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            with telemetry.child(f"engine {method} {path}"):
                headers |= telemetry.headers()
                async with (
                    asyncio.timeout(seconds),
                    self._http.stream(method, endpoint.rstrip("/") + path, content=data, headers=headers) as response,
                ):
                    text = await _read(response)
        except TimeoutError:
            raise EngineTimeout(f"no answer within {seconds:g} s") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineUnreachable(f"no connection: {error or type(error).__name__}") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise EngineUnreachable(f"not an endpoint: {error}") from None
        except httpx.HTTPError as error:
            raise EngineFailed(f"the exchange broke off: {error or type(error).__name__}") from None
        except EngineError:
            raise
        except Exception as error:
            # httpx, and what it stands on, does not foresee all that can be answered.
            raise EngineFailed(f"the exchange broke off: {type(error).__name__}") from error
        status = response.status_code
        if 400 <= status < 500:
            raise EngineRejected(status, _json(text, strict=False))
        if status == 501:
            raise EngineNotInitialised("it has no game yet")
        if status >= 500:
            raise EngineFailed(f"it answered {status}")
        return status, _json(text, strict=path.startswith("/api/"))


async def _read(response: httpx.Response) -> bytes:
    # What is packed can grow a thousandfold when it is unpacked; we have asked for it as it is.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise EngineFailed("its answer is encoded, which nobody asked for")
    text = bytearray()
    async for part in response.aiter_raw():
        text += part
        if len(text) > LARGEST_ANSWER:
            raise EngineFailed(f"its answer has more than {LARGEST_ANSWER} bytes")
    return bytes(text)


def _json(text: bytes, *, strict: bool) -> Any:
    if not text:
        return None
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if strict:
            raise EngineFailed("its answer is not JSON") from None
        return None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _expect(status: int, expected: int) -> None:
    if status != expected:
        _wrong(f"it answered {status} instead of {expected}")


# -- the state's parts


def _wrong(what: str) -> NoReturn:
    raise EngineFailed(what)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(f"{what} is no object")
    return value


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > MOST_PLAYERS:
        _wrong(f"{name} is no list of at most {MOST_PLAYERS}")
    return value


def _bool(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        _wrong(f"{name} is neither true nor false")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_WHOLE:
        _wrong(f"{name} is no whole number from 0 to {_MOST_WHOLE}")
    return value


def _amount(fields: dict[str, Any], name: str) -> int | float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(f"{name} is no number")
    if not 0 <= value <= _MOST_AMOUNT:  # what is not a number is never
        _wrong(f"{name} is not from 0 to {_MOST_AMOUNT}")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    # What cannot be printed cannot always be stored: Postgres knows neither NUL nor lone surrogates.
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_TEXT or not value.isprintable():
        _wrong(f"{name} is no printable string of 1 to {LONGEST_TEXT} characters")
    return value


def _stage(fields: dict[str, Any]) -> int | str:
    return _text(fields, "stage") if isinstance(fields.get("stage"), str) else _whole(fields, "stage")


def _game_id(fields: dict[str, Any]) -> str:
    value = _text(fields, "id")
    try:
        return str(uuid.UUID(value))
    except ValueError:
        _wrong("id is no UUID")


def _player(item: Any) -> Player:
    fields = _object(item, "a player")
    return Player(
        id=_text(fields, "id"),
        race_name=_text(fields, "raceName"),
        planets=_whole(fields, "planets"),
        population=_amount(fields, "population"),
        votes=_amount(fields, "votes"),
        extinct=_bool(fields, "extinct"),
    )
