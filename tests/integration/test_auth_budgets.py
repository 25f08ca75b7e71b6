"""Budgets of sign-in codes, with many at once: exactly so many, and nobody is kept out by somebody elsewhere."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.contract.wire import Answer, request, volley
from tests.postgres import Database
from tests.services import Api, confirm, confirmation, new_email, read_code, send_code, wrong_code

SEND = "/api/v1/public/auth/send-email-code"
CONFIRM = "/api/v1/public/auth/confirm-email-code"

CROWD = 24


def send_once(connection: psycopg.Connection[Any], email: str, source: str) -> str:
    """Ask for a code; return the id."""
    code_hash = hashlib.sha256(b"123456").digest()
    query = "SELECT api.email_code_send(%s, '123456', %s, %s)"
    row = connection.execute(query, [json.dumps({"email": email}), code_hash, source]).fetchone()
    assert row is not None
    return str(json.loads(row[0])["challenge_id"])


def confirm_once(connection: psycopg.Connection[Any], challenge_id: str, source: str, code: str) -> str:
    """Try a code; return the status."""
    body = json.dumps(confirmation(challenge_id, code))
    query = "SELECT (api.email_code_confirm(%s, %s, NULL, %s)).status"
    row = connection.execute(query, [body, hashlib.sha256(code.encode()).digest(), source]).fetchone()
    assert row is not None
    return str(row[0])


class Crowd:
    """Many callers of the functions, each on a connection of their own, and all at the same moment."""

    def __init__(self, database: Database, **settings: int) -> None:
        self.db = database.connect()
        for name, value in {"challenge_throttle_max": 20, **settings}.items():
            self.db.execute(f"UPDATE settings SET default_value = {value}, max_value = 1e9 WHERE setting_name = '{name}'")
        self._connections = [database.connect("galaxy_api") for _ in range(CROWD)]

    def _all(self, count: int, work: Callable[[psycopg.Connection[Any], int], str]) -> list[str]:
        barrier = threading.Barrier(CROWD)

        def run(place: int) -> list[str]:
            barrier.wait(30)
            return [work(self._connections[place], number) for number in range(place, count, CROWD)]

        with ThreadPoolExecutor(CROWD) as pool:
            return [answer for answers in pool.map(run, range(CROWD)) for answer in answers]

    def send(self, count: int, who: Callable[[int], tuple[str, str]]) -> list[str]:
        """Ask for codes, each for an address and from an address; return the ids."""
        return self._all(count, lambda connection, number: send_once(connection, *who(number)))

    def confirm(self, count: int, who: Callable[[int], tuple[str, str]], code: str = "000000") -> list[str]:
        """Try a code, each with a challenge and from an address; return the statuses."""
        return self._all(count, lambda connection, number: confirm_once(connection, *who(number), code))

    def send_and_confirm(self, count: int, to: Callable[[int], tuple[str, str]], of: Callable[[int], tuple[str, str]]) -> None:
        """Do both at the same time."""

        def work(connection: psycopg.Connection[Any], number: int) -> str:
            if number % 2:
                return confirm_once(connection, *of(number // 2), "000000")
            return send_once(connection, *to(number // 2))

        self._all(count, work)

    def one(self, query: str, *parameters: Any) -> Any:
        row = self.db.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def mails(self, email: str) -> int:
        return int(self.one("SELECT count(*) FROM mail_recipients WHERE address = %s", email))

    def compared(self) -> int:
        return int(self.one("SELECT coalesce(sum(attempts), 0) FROM auth_challenges"))

    def make_noisy(self, budget: str) -> None:
        """No network has anything left of what quiet ones have."""
        self.db.execute(
            "INSERT INTO auth_budgets (budget, key_hash, spent, expires_at)"
            " SELECT %s, budget_key('network', source_network(a::inet, 24)), 1000, now() + '1 day' FROM unnest(%s::text[]) AS a",
            [budget, [network(number) for number in range(60)]],
        )

    def challenges(self, count: int, name: str) -> list[str]:
        """Make challenges, each for an address of its own and with nothing counted."""
        found = self.send(count, lambda number: (f"{name}{number}@example.org", "203.0.113.1"))
        self.db.execute("DELETE FROM auth_budgets")
        return found


def network(number: int) -> str:
    """An address in a network of its own."""
    return f"10.{number // 256}.{number % 256}.1"


def test_a_network_gets_an_address_exactly_so_many_mails(database: Database) -> None:
    crowd = Crowd(database, code_mails_per_network=7)
    crowd.db.execute("UPDATE settings SET max_value = 1000, default_value = 1000 WHERE setting_name = 'challenge_throttle_max'")
    ids = crowd.send(60, lambda number: ("ann@example.org", f"192.0.2.{number}"))
    assert crowd.mails("ann@example.org") == 7
    assert len(set(ids)) == 60, "each of the others has an id of its own"
    assert crowd.one("SELECT count(*) FROM auth_challenges WHERE challenge_id = ANY (%s::uuid[])", ids) == 7
    assert all(uuid.UUID(found).version == 7 for found in ids)
    crowd.send(1, lambda number: ("ann@example.org", "198.51.100.1"))
    assert crowd.mails("ann@example.org") == 8, "elsewhere there is another budget"


def test_an_address_gets_exactly_so_many_mails_from_everywhere(database: Database) -> None:
    crowd = Crowd(database, code_mails_per_address=5)
    ids = crowd.send(60, lambda number: ("ann@example.org", network(number)))
    assert crowd.mails("ann@example.org") == 5
    # All of the others are given an id that opens nothing: a challenge is for the network that asked for it.
    found = crowd.one("SELECT count(DISTINCT challenge_id) FROM auth_challenges WHERE challenge_id = ANY (%s::uuid[])", ids)
    assert (found, len(set(ids))) == (5, 60)


def test_the_service_mails_exactly_so_many_to_strangers_and_as_many_to_members(database: Database) -> None:
    crowd = Crowd(database, code_mails_per_service=9)
    crowd.make_noisy("code_mails_per_quiet_network")
    for number in range(30):
        crowd.db.execute("SELECT account_create('email', %(e)s, %(e)s, 'en', 'UTC', NULL)", {"e": f"member{number}@example.org"})
    crowd.send(40, lambda number: (f"stranger{number}@example.org", network(number)))
    assert crowd.one("SELECT count(*) FROM mail_recipients") == 9
    crowd.send(30, lambda number: (f"member{number}@example.org", network(number)))
    assert crowd.one("SELECT count(*) FROM mail_recipients WHERE address LIKE 'member%%'") == 9


def test_once_the_service_has_mailed_its_own_a_quiet_network_gets_exactly_so_many(database: Database) -> None:
    crowd = Crowd(database, code_mails_per_service=1, code_mails_per_quiet_network=4)
    crowd.send(40, lambda number: (f"stranger{number}@example.org", f"192.0.2.{number}"))
    assert crowd.one("SELECT count(*) FROM mail_recipients") == 4
    crowd.send(40, lambda number: (f"other{number}@example.org", network(number % 5)))
    assert crowd.one("SELECT count(*) FROM mail_recipients") == 4 + 5 * 4


def test_of_a_network_exactly_so_many_wrong_codes_are_compared(database: Database) -> None:
    crowd = Crowd(database, wrong_codes_per_network=12)
    ids = crowd.send(10, lambda number: ("ann@example.org", "203.0.113.1"))
    assert Counter(crowd.confirm(100, lambda number: (ids[number % 10], f"192.0.2.{number}"))) == {"400": 100}
    assert crowd.compared() == 12
    untried = crowd.one("SELECT challenge_id::text FROM auth_challenges WHERE attempts < 5 LIMIT 1")
    assert crowd.confirm(1, lambda number: (untried, "192.0.2.1"), "123456") == ["400"]
    assert crowd.confirm(1, lambda number: (untried, "198.51.100.1"), "123456") == ["200"]


def test_of_an_address_exactly_so_many_wrong_codes_are_compared_and_then_one_for_each_network(database: Database) -> None:
    crowd = Crowd(database, wrong_codes_per_address=8)
    ids = crowd.send(20, lambda number: ("ann@example.org", "203.0.113.1"))
    crowd.confirm(60, lambda number: (ids[number % 20], f"192.0.2.{number}"))
    assert crowd.compared() == 8
    crowd.confirm(60, lambda number: (ids[number % 20], network(number % 6)))
    assert crowd.compared() == 8 + 6
    assert crowd.confirm(1, lambda number: (ids[0], "198.51.100.1"), "123456") == ["200"], "who has the code gets in"


@pytest.mark.parametrize("most", [1, 10])
def test_of_the_whole_service_exactly_so_many_wrong_codes_are_compared(most: int, database: Database) -> None:
    crowd = Crowd(database, wrong_codes_per_service=most, wrong_codes_per_quiet_network=1)
    ids = crowd.challenges(60, "p")
    crowd.make_noisy("wrong_codes_per_quiet_network")
    crowd.confirm(60, lambda number: (ids[number], network(number)))
    assert crowd.compared() == most
    assert crowd.one("SELECT spent FROM auth_budgets WHERE budget = 'wrong_codes_per_service'") == most


def test_once_the_service_is_over_a_quiet_network_has_exactly_so_many(database: Database) -> None:
    crowd = Crowd(database, wrong_codes_per_service=1, wrong_codes_per_quiet_network=5)
    ids = crowd.challenges(60, "p")
    crowd.confirm(1, lambda number: (ids[59], "203.0.113.1"))
    crowd.confirm(59, lambda number: (ids[number], f"192.0.2.{number}"))
    assert crowd.compared() == 1 + 5
    assert crowd.confirm(1, lambda number: (ids[59], "198.51.100.1"), "123456") == ["200"], "who is quiet is let in"


def test_those_who_count_for_all_wait_for_each_other_in_one_order(database: Database) -> None:
    """No deadlock, which would be raised here, where mails and wrong codes of few addresses and networks meet."""
    crowd = Crowd(
        database,
        code_mails_per_service=20,
        code_mails_per_quiet_network=9,
        wrong_codes_per_service=20,
        wrong_codes_per_quiet_network=9,
    )
    ids = crowd.challenges(20, "p")
    crowd.send_and_confirm(
        480, lambda n: (f"p{n % 20}@example.org", network(n % 5)), lambda n: (ids[(n * 7) % 20], network(n % 5))
    )
    assert 5 * 9 <= crowd.compared() <= 20 + 5 * 9


# -- through HTTP, by several processes


def fire(apis: list[Api], path: str, bodies: list[dict[str, Any]], source: Callable[[int], str]) -> list[Answer]:
    requests = [request("POST", path, body, {"X-Forwarded-For": source(n)}) for n, body in enumerate(bodies)]
    return volley([api.address for api in apis], requests)


@pytest.mark.parametrize(("throttle", "made", "tries"), [("3", 3, 15), ("20", 15, 30)])
def test_one_network_locks_nobody_out_whatever_it_tries(
    throttle: str, made: int, tries: int, start_api: Callable[..., Api], database: Database
) -> None:
    """It asks for all the codes that it gets and is wrong as often as it can; who sits elsewhere signs in, at that moment."""
    api = start_api(database, BACKEND_AUTH_CHALLENGE_THROTTLE_MAX=throttle)
    email = new_email()
    there, here = "192.0.2.66", "198.51.100.7"
    headers = {"X-Forwarded-For": here}
    before = api.client.post(SEND, json={"email": email}, headers=headers).json()["challenge_id"]
    with database.connect() as db:
        db.execute("UPDATE settings SET default_value = 15 WHERE setting_name = 'code_mails_per_network'")
        sent = fire([api], SEND, [{"email": email}] * 60, lambda n: there)
        assert {answer.status for answer in sent} == {200}
        assert db.execute("SELECT count(*) FROM mail_recipients").fetchone() == (1 + made,)
        ids = [answer.json()["challenge_id"] for answer in sent]
        assert before not in ids
        guesses = [confirmation(i, wrong_code(read_code(database, i))) for i in _made(db, ids) for _ in range(6)]
        tried = fire([api], CONFIRM, guesses, lambda n: there)
        assert {(answer.status, answer.json()["error"]["code"]) for answer in tried} == {(400, "invalid_code")}
        assert db.execute("SELECT sum(attempts) FROM auth_challenges").fetchone() == (tries,)
    for mine in (before, api.client.post(SEND, json={"email": email}, headers=headers).json()["challenge_id"]):
        right = confirmation(mine, read_code(database, mine))
        assert api.client.post(CONFIRM, json=right, headers=headers).status_code == 200


def _made(db: psycopg.Connection[Any], ids: list[str]) -> list[str]:
    rows = db.execute("SELECT challenge_id FROM auth_challenges WHERE challenge_id = ANY (%s::uuid[])", [ids]).fetchall()
    return [str(row[0]) for row in rows]


def test_a_network_over_its_budget_is_not_let_in_by_a_right_code(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database)
    there, here = {"X-Forwarded-For": "192.0.2.66"}, {"X-Forwarded-For": "198.51.100.7"}
    with database.connect() as db:
        db.execute("UPDATE settings SET default_value = 1 WHERE setting_name = 'wrong_codes_per_network'")
    mine = api.client.post(SEND, json={"email": new_email()}, headers=here).json()["challenge_id"]
    code = read_code(database, mine)
    for given in (wrong_code(code), code):
        assert api.client.post(CONFIRM, json=confirmation(mine, given), headers=there).status_code == 400
    assert api.client.post(CONFIRM, json=confirmation(mine, code), headers=here).status_code == 200


def test_a_budget_is_of_all_processes_and_of_those_to_come(start_api: Callable[..., Api], database: Database) -> None:
    pepper = {"BACKEND_AUTH_PEPPER": "the same for all of them", "BACKEND_ADMIN_BOOTSTRAP_PASSWORD": "the same for all"}
    apis = [start_api(database, BACKEND_AUTH_CHALLENGE_THROTTLE_MAX="20", **pepper) for _ in range(2)]
    email = new_email()
    with database.connect() as db:
        db.execute("UPDATE settings SET default_value = 6 WHERE setting_name ~ '^(code_mails|wrong_codes)_per_network$'")
        fire(apis, SEND, [{"email": email}] * 40, lambda n: f"192.0.2.{n}")
        assert db.execute("SELECT count(*) FROM mail_recipients").fetchone() == (6,)
        ids = [str(row[0]) for row in db.execute("SELECT challenge_id FROM auth_challenges").fetchall()]
        fire(apis, CONFIRM, [confirmation(i, "000000") for i in ids for _ in range(4)], lambda n: f"192.0.2.{n}")
        assert db.execute("SELECT sum(attempts) FROM auth_challenges").fetchone() == (6,)
        later = start_api(database, BACKEND_AUTH_CHALLENGE_THROTTLE_MAX="20", **pepper)
        fire([later], SEND, [{"email": email}] * 4, lambda n: "192.0.2.9")
        assert db.execute("SELECT count(*) FROM mail_recipients").fetchone() == (6,)


def test_what_is_over_budget_looks_like_what_is_not(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database)
    email = new_email()
    with database.connect() as db:
        db.execute("UPDATE settings SET default_value = 1 WHERE setting_name = 'code_mails_per_network'")
        answers = [api.client.post(SEND, json={"email": email}) for _ in range(2)]
        assert db.execute("SELECT count(*) FROM auth_challenges").fetchone() == (1,)
    for answer in answers:
        assert (answer.status_code, set(answer.json())) == (200, {"challenge_id"})
        assert uuid.UUID(answer.json()["challenge_id"]).version == 7
    names = [{n for n in answer.headers if n not in ("date", "x-request-id")} for answer in answers]
    assert names[0] == names[1]
    real = answers[0].json()["challenge_id"]
    wrong = [confirm(api, i, wrong_code(read_code(database, real))) for i in (real, answers[1].json()["challenge_id"])]
    assert [(w.status_code, w.json()["error"]["code"]) for w in wrong] == [(400, "invalid_code")] * 2
    assert send_code(api, new_email()) != real
