"""The heaviest transition, an approved application: a seat, a race name, a notification, a push event, a mail and its job.

Each measurement finds the same number of open applications, each to a game of its own, so that writers wait for nothing but what
the whole database has only one of.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import data, pgbench, servers, wakes
from bench.load import SESSION_ID, Figures, elsewhere
from bench.section import OTHERS_EVERY, Reach, Section, counted, of_round, ratios, spread, table, turned
from bench.streamers import DATABASE, connect, streamers
from dev.cluster import Cluster

WRITERS = (1, 8)

_CONNECTIONS = 8

_OWNER = SESSION_ID.format(0)

# Without triggers and foreign keys. The owner has the number 0, as has nobody else.
_FILL = """
    SET session_replication_role = replica;
    INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1');
    INSERT INTO accounts (user_id, user_name, display_name, email)
    SELECT {id}, 'player-' || i, 'player-' || i, 'player-' || i || '@example.org' FROM generate_series(0, {rows}) AS i;
    INSERT INTO identities (provider, subject, user_id) SELECT 'email', a.email, a.user_id FROM accounts AS a;
    INSERT INTO entitlement_records (entitlement_record_id, user_id, tier, source, reason_code, starts_at)
    SELECT a.user_id, a.user_id, 'free', 'registration', 'registration', a.created_at FROM accounts AS a;
    INSERT INTO entitlement_snapshots (user_id, entitlement_record_id, tier, starts_at)
    SELECT a.user_id, a.user_id, 'free', a.created_at FROM accounts AS a;
    INSERT INTO games (game_id, game_name, name_search, visibility, status, owner_user_id, min_players, max_players,
                       enrollment_ends_at, turn_schedule, target_engine_version)
    SELECT {id}, 'Game ' || i, 'game ' || i, 'public', 'enrollment_open', '{owner}', 2, 4, now() + interval '30 days',
           '0 18 * * *', '1.0.0'
      FROM generate_series(1, {rows}) AS i;
    INSERT INTO applications (application_id, game_id, applicant_user_id, race_name)
    SELECT {id}, {id}, {id}, 'Race ' || i FROM generate_series(1, {rows}) AS i;
    SET session_replication_role = origin;
"""

# What an approval leaves behind, but for the stream, whose positions must not be given twice.
_RESET = """
    SET session_replication_role = replica;
    TRUNCATE memberships, race_names, notifications, mail_payloads, mail_deliveries, procrastinate.procrastinate_jobs CASCADE;
    UPDATE applications SET status = 'submitted', decided_at = NULL WHERE status <> 'submitted';
    SET session_replication_role = origin;
"""

_SCRIPT = f"""\\set i :i + 1
\\set n 1 + :i * :clients + :client_id
SELECT api.application_approve('{_OWNER}', {data.id_of(":n")}, {data.id_of(":n")});
"""

_REQUEST = "POST /api/v1/user/lobby/games/{id}/applications/{id}/approve HTTP/1.1\n" + f"X-User-ID: {_OWNER}\nContent-Length: 0"


@dataclass(frozen=True)
class Plan:
    """The rounds, the seconds of one measurement, and how many applications there are for it."""

    rounds: int
    seconds: float
    rows: int


DEFAULT = Plan(12, 1.5, 12_000)
SMOKE = Plan(1, 1.0, 6_000)


def fill(cluster: Cluster, rows: int) -> None:
    """Make the applications, each of somebody else, to games that one person runs."""
    with connect(cluster) as connection:
        connection.execute(_FILL.format(id=data.id_of("i"), rows=rows, owner=_OWNER).encode())
        connection.execute("VACUUM (ANALYZE)")
    data.settle(cluster)


def reset(cluster: Cluster) -> None:
    """Let every application be open again."""
    with connect(cluster) as connection:
        connection.execute(_RESET)
        connection.execute("VACUUM applications")


def called(cluster: Cluster, writers: int, seconds: float) -> Figures:
    """Approve without HTTP and without Python."""
    given = {"i": -1, "clients": writers}
    return pgbench.figures(pgbench.run(cluster, DATABASE, _SCRIPT, clients=writers, seconds=seconds, variables=given))


def wake_costs(cluster: Cluster, plan: Plan) -> tuple[list[str], list[Reach]]:
    """What waking costs the writers."""
    most = max(WRITERS)
    compared = [(most, "conditional"), (most, "none")]
    found: dict[tuple[int, str], dict[int, Figures]] = {(writers, way): {} for writers in WRITERS for way in wakes.WAYS}
    with connect(cluster) as connection:
        switch = wakes.Wakes(connection)
        for turn in range(plan.rounds):
            for writers, way in of_round(compared, [case for case in found if case not in compared], turn):
                switch.use(way)
                reset(cluster)
                found[writers, way][turn] = called(cluster, writers, plan.seconds)
            print(f"writes, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
        switch.use("conditional")
    rates = {case: {turn: one.rate for turn, one in rounds.items()} for case, rounds in found.items()}
    rows = [
        [
            str(writers),
            way,
            spread(ratios(rates[writers, way], rates[writers, "none"])),
            spread(ratios(rates[writers, way], rates[1, way])),
            f"{statistics.median(one.p50 for one in rounds.values()) * 1000:.2f}",
            spread(one.p99 / one.p50 for one in rounds.values()),
        ]
        for (writers, way), rounds in found.items()
    ]
    reach = Reach(f"{most} writers: with their wake-ups ÷ without", ratios(rates[most, "conditional"], rates[most, "none"]), 0.9)
    head = ["writers", "wake-up", "writes/s ÷ none", "÷ one writer", "p50, ms", "p99 ÷ p50"]
    return table(head, rows), [reach]


def over_http(cluster: Cluster, plan: Plan, directory: Path) -> tuple[list[str], list[Reach]]:
    """The same over HTTP, against P."""
    found: dict[str, dict[int, Figures]] = {"P": {}, "ours": {}}
    server = servers.start_api(cluster, DATABASE, directory, "api")
    try:
        servers.first_answer(server, "/readyz")
        for turn in range(plan.rounds):
            for system in turned(list(found), turn):
                reset(cluster)
                found[system][turn] = (
                    called(cluster, _CONNECTIONS, plan.seconds)
                    if system == "P"
                    else elsewhere(server.port, _REQUEST, plan.rows, _CONNECTIONS, plan.seconds, order="each")
                )
            print(f"writes over HTTP, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    finally:
        servers.stop([server.process])
    rates = {system: {turn: one.rate for turn, one in rounds.items()} for system, rounds in found.items()}
    share = ratios(rates["ours"], rates["P"])
    rows = [
        [
            system,
            spread(ratios(rates[system], rates["P"])),
            f"{statistics.median(one.p50 for one in rounds.values()) * 1000:.2f}",
            spread(one.p99 / one.p50 for one in rounds.values()),
        ]
        for system, rounds in found.items()
    ]
    what = f"the transition over HTTP, {_CONNECTIONS} connections, ÷ P"
    return table(["", "writes/s ÷ P", "p50, ms", "p99 ÷ p50"], rows), [
        Reach(what, share, 0.4),
        Reach(f"{what}: then", share, 0.7),
    ]


def run(cluster: Cluster, directory: Path, *, is_smoke: bool) -> Section:
    """Measure, and tell it."""
    plan = SMOKE if is_smoke else DEFAULT
    with data.database(cluster, DATABASE):
        fill(cluster, plan.rows)
        with streamers(cluster, directory, 1), wakes.waker(cluster, DATABASE, directory):
            costs, cost_reaches = wake_costs(cluster, plan)
            http, http_reaches = over_http(cluster, plan, directory)
    lines = [
        "`api.application_approve` as the login `galaxy_api`, prepared: a seat, a race name, a notification, a push event, a",
        "mail and its job in one transaction, each for another game and person;",
        f"{counted(plan.rounds, 'round')} of {plan.seconds:g} s, in an order that turns; what has no bar, in each",
        f"{OTHERS_EVERY}th. The streamer runs, and of the worker what is woken; no mail is sent meanwhile.",
        "",
        "### What waking costs",
        "",
        "`conditional` is what we do; `none` is without any wake-up; `every` notifies the sequencer in each transaction, and the",
        "workers by Procrastinate's own trigger.",
        "",
        *costs,
        f"### Over HTTP, {_CONNECTIONS} connections",
        "",
        *http,
    ]
    return Section("Writes", lines, [*cost_reaches, *http_reaches])
