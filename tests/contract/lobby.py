"""How to ask for applications, members, one's invites and an administrator's games, rightly and wrongly: a part of `games`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.contract import games
from tests.contract.document import Operation, document
from tests.contract.games import Game
from tests.services import Person, sanction

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

TAGS = ("applications", "admin_games")
OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in TAGS) | {
    "game_list",
    "game_update",
    "game_action_list",
    "membership_remove",
    "membership_block",
    "my_invite_list",
    "invite_get",
    "invite_decline",
    "invite_revoke",
}

_STATUS = {
    "force_start": "ready_to_start",
    "force_stop": "running",
    "open_enrollment": "draft",
    "ready_to_start": "enrollment_open",
    "start": "ready_to_start",
    "retry_start": "start_failed",
    "pause": "running",
    "resume": "paused",
    "cancel": "ready_to_start",
    "update": "draft",
}
_IN_GAME = {f"admin_game_{name}": status for name, status in _STATUS.items()} | {"game_update": "draft"}

# Who acts is not the owner.
_APPLICANTS = ("application_create", "application_get", "application_withdraw", "my_application_list")
_INVITED = ("invite_decline", "my_invite_list")


def build(world: World, operation: Operation, actor: Person, **changes: Any) -> tuple[Game, Mapping[str, str], Any]:
    """Make a game in which `actor` may do the operation; return it, the values of the path, and a right body."""
    name = operation.name
    is_public = "application" in name or name.startswith(("admin_invite", "game_list"))
    owner = None if operation.group == "admin" or name in (*_APPLICANTS, *_INVITED) else actor
    # A game is brought through its states as a private one.
    game = games.make_game(world, owner, **{"status": _IN_GAME.get(name, "enrollment_open"), **changes})
    if is_public:
        game.execute("UPDATE games SET visibility = 'public' WHERE game_id = %(game)s")
    values = {
        "game_id": game.game_id,
        "application_id": str(uuid.uuid4()),
        "invite_id": str(uuid.uuid4()),
        "membership_id": str(uuid.uuid4()),
    }
    if "invite" in name and "{invite_id}" in operation.path:
        values["invite_id"] = game.invite(actor if name in _INVITED else world.person())
    if "{application_id}" in operation.path:
        applicant = actor if name in _APPLICANTS else world.person()
        made = game.call("api.application_create", applicant.user_id, game.game_id, json.dumps({"race_name": games.new_race()}))
        values["application_id"] = json.loads(made)["application_id"]
    if "{membership_id}" in operation.path:
        with world.connect() as connection:
            row = connection.execute(
                "SELECT membership_id FROM memberships WHERE game_id = %s AND user_id = %s", [game.game_id, game.guest.user_id]
            ).fetchone()
        assert row is not None
        values["membership_id"] = str(row[0])
    return game, values, _body(game, operation) if operation.has_body else None


def _body(game: Game, operation: Operation) -> Any:
    match operation.name:
        case "game_update" | "admin_game_update":
            return {"description": "Other lines", "turn_schedule": "30 6 * * mon"}
        case "application_create":
            return {"race_name": games.new_race()}
        case "admin_game_create":
            with game.world.connect() as connection:
                body = games.creation(games.new_version(connection), owner_user_id=game.owner.user_id)
            del body["race_name"]
            return body
        case "admin_game_ban_member":
            return {"user_id": game.guest.user_id, "reason": "A test."}
        case "admin_invite_create":
            return {"expires_at": games.FAR}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


# -- wrong ones


def _person(user_id: object) -> Person:
    return Person("", str(user_id), "", "")


def _one(game: Game, query: str) -> Any:
    with game.world.connect() as connection:
        row = connection.execute(query, [game.game_id]).fetchone()
    assert row is not None
    return row[0]


def _applicant(game: Game) -> Person:
    return _person(_one(game, "SELECT applicant_user_id FROM applications WHERE game_id = %s"))


def _invited(game: Game) -> Person:
    return _person(_one(game, "SELECT invited_user_id FROM invites WHERE game_id = %s AND status = 'created'"))


def _with_applicant(change: Callable[[Game, Person], None]) -> Make:
    return games.in_game(lambda game: change(game, _applicant(game)))


def _seat(game: Game, person: Person) -> None:
    race = games.new_race()
    game.execute(f"SELECT seat_take(g, '{person.user_id}', '{race}') FROM games AS g WHERE game_id = %(game)s")


def _seat_and_block(game: Game, person: Person) -> None:
    _seat(game, person)
    game.execute(
        f"WITH gone AS (UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = '{person.user_id}')"
        " UPDATE memberships SET status = 'blocked', ended_at = now()"
        f" WHERE game_id = %(game)s AND user_id = '{person.user_id}'"
    )


def _no_seats_for(game: Game, person: Person) -> None:
    with game.world.connect() as connection:
        games.limit(connection, person.user_id, "max_active_memberships", 0)


def _may_not_join(game: Game, person: Person) -> None:
    with game.world.connect() as connection:
        sanction(connection, person.user_id, "game_join_block")


def _rename(name: str) -> Make:
    return games.sql(f"UPDATE applications SET race_name = {name} WHERE game_id = %(game)s")


def _applied_already(world: World, operation: Operation) -> Request:
    game, request = games.game_and_request(world, operation, world.person())
    body = json.dumps({"race_name": games.new_race()})
    game.call("api.application_create", request.headers["X-User-ID"], game.game_id, body)
    return request


def _no_such_seat(world: World, operation: Operation) -> Request:
    game, request = games.game_and_request(world, operation, world.person())
    return replace(request, path=operation.path.format_map({"game_id": game.game_id, "membership_id": uuid.uuid4()}))


def _own_game(world: World, operation: Operation) -> Request:
    game, request = games.game_and_request(world, operation, world.person())
    game.execute(
        "WITH gone AS (UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = %(owner)s)"
        " UPDATE memberships SET status = 'removed', ended_at = now() WHERE game_id = %(game)s AND user_id = %(owner)s"
    )
    return replace(request, headers=game.owner.header)


def _tried_often(world: World, operation: Operation) -> Request:
    _, request = games.game_and_request(world, operation, world.person())
    with world.connect() as connection:
        connection.execute(
            "INSERT INTO invite_attempts (user_id, failures, expires_at) VALUES (%s, 20, now() + '1 hour')",
            [request.headers["X-User-ID"]],
        )
    return request


def _body_of_game(who: Callable[[Game], Person]) -> Make:
    def make(world: World, operation: Operation) -> Request:
        game, request = games.game_and_request(world, operation, world.person())
        return replace(request, body={"invited_user_id": who(game).user_id})

    return make


_APPROVALS: Mapping[str, Make] = {
    "already_member": _with_applicant(_seat),
    "eligibility_denied": _with_applicant(_seat_and_block),
    "limit_reached": _with_applicant(_no_seats_for),
    "invalid_name": _rename("'Zörg_!'"),
    "name_taken": _rename("(SELECT race_name FROM memberships WHERE game_id = %(game)s AND user_id = %(owner)s)"),
}
_DECIDED = games.sql("UPDATE applications SET status = 'rejected', decided_at = now() WHERE game_id = %(game)s")
_TAKEN_BACK = games.sql("UPDATE invites SET status = 'revoked' WHERE game_id = %(game)s AND status = 'created'")

CAUSES: Mapping[str | tuple[str, str], Make] = {
    "application_not_found": games.elsewhere("application_id"),
    "membership_not_found": _no_such_seat,
    "already_applied": _applied_already,
    ("admin_game_ban_member", "membership_not_found"): games.with_body(user_id=str(uuid.uuid4())),
    ("membership_remove", "forbidden"): games.as_another(games.invitee),
    **{
        (name, "invalid_transition"): games.in_game(status="finished")
        for name in ("membership_remove", "membership_block", "admin_game_ban_member")
    },
    ("admin_game_force_stop", "invalid_transition"): games.in_game(status="draft"),
    ("application_create", "invalid_transition"): games.in_game(status="draft"),
    ("application_create", "already_member"): games.as_another(lambda game: game.guest),
    ("application_create", "eligibility_denied"): _own_game,
    ("application_create", "limit_reached"): games.no_more("max_pending_applications"),
    ("application_approve", "forbidden"): games.as_another(_applicant),
    ("application_reject", "forbidden"): games.as_another(_applicant),
    ("application_withdraw", "forbidden"): games.as_another(lambda game: game.owner),
    **{
        (name, "invalid_transition"): _DECIDED
        for name in (
            "application_approve",
            "application_reject",
            "application_withdraw",
            "admin_application_approve",
            "admin_application_reject",
        )
    },
    **{("application_approve", code): make for code, make in _APPROVALS.items()},
    **{("admin_application_approve", code): make for code, make in _APPROVALS.items()},
    ("admin_application_approve", "sanctioned"): _with_applicant(_may_not_join),
    ("invite_redeem", "too_many_attempts"): _tried_often,
    ("invite_redeem_by_code", "too_many_attempts"): _tried_often,
    ("invite_decline", "forbidden"): games.as_another(lambda game: game.owner),
    ("invite_revoke", "forbidden"): games.as_another(_invited),
    **{(name, "invalid_transition"): _TAKEN_BACK for name in ("invite_decline", "invite_revoke", "admin_invite_revoke")},
    ("admin_game_create", "eligibility_denied"): games.with_body(owner_user_id=str(uuid.uuid4())),
    ("admin_game_create", "engine_version_unavailable"): games.no_version,
    ("admin_invite_create", "already_member"): _body_of_game(lambda game: game.guest),
    ("admin_invite_create", "already_invited"): _body_of_game(games.invitee),
    ("admin_invite_create", "eligibility_denied"): games.with_body(invited_user_id=str(uuid.uuid4())),
    **{
        (f"admin_game_{name}", "not_enough_members"): games.in_game(games.leave("removed"))
        for name in ("start", "retry_start", "force_start")
    },
}
