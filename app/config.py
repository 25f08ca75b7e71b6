"""The service's configuration: every variable, declared once.

A field of `Config` is a variable: `http_listen_addr` is `BACKEND_HTTP_LISTEN_ADDR`. What is declared with the
field (how its value is written, its default, what it is for) is what `load` checks, and what
docs/configuration.md and .env.example are printed from:

    python -m app.config markdown > docs/configuration.md
    python -m app.config env > .env.example

Files that are named are not looked at here: whoever opens one says what is wrong with it.
"""

# ruff: noqa: RUF009  (the calls that declare variables make dataclass fields, which ruff cannot see)

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from decimal import Decimal
from email.utils import parseaddr
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from app import dsn

PREFIX = "BACKEND_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")
S = TypeVar("S", bound=str)


class ConfigError(Exception):
    """The environment cannot be used; `problems` is all that is wrong, each after its variable's name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Secret(str):
    """A string whose repr is `***`, so that no repr of a `Config` tells it; str() and formatting still do."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


FLUSH_SECONDS = 3.0
"""So long at most a program waits at its end for whoever collects its spans and metrics."""


class Address(NamedTuple):
    """Where to listen; an empty host is every address of the machine, port 0 any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# How values are written.


class _RefusedError(ValueError):
    """What is wrong with a value, to follow the variable's name: one argument for each problem."""


@dataclass(frozen=True)
class _Kind(Generic[T]):
    """How a value is written: `parse` raises ValueError for what is not `form`, or _RefusedError to say more.

    The value of a secret kind is never shown.
    """

    form: str
    parse: Callable[[str], T]
    secret: bool = False


_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it: `250ms`, `1h30m`, `1.5h`, `0`; else ValueError."""
    if text == "0":
        return 0.0
    # The length is limited because numbers of thousands of digits take long.
    if len(text) > 64 or not re.fullmatch(f"(?:{_DURATION_PART.pattern})+", text):
        raise _RefusedError("must be a duration with its unit, such as 250ms, 30s, 5m or 1h30m")
    return float(sum(Fraction(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text)))


def _duration(low: str, high: str) -> _Kind[float]:
    least, most = parse_duration(low), parse_duration(high)

    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not least <= seconds <= most:
            raise ValueError
        return seconds

    return _Kind(f"a duration from {low} to {high}", parse)


def _whole(low: int, high: int) -> _Kind[int]:
    def parse(text: str) -> int:
        # int() alone would take "1_000", " 1" and the digits of other scripts.
        if not re.fullmatch("[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return _Kind(f"a whole number from {low} to {high}", parse)


def _number(low: float, high: float) -> _Kind[float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", text) or not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return _Kind(f"a number from {low} to {high}", parse)


def _parse_size(text: str) -> int:
    match = re.fullmatch("([0-9]{1,18})([bkmgt]?)", text.lower())
    if match is None:
        raise ValueError
    return int(match[1]) << {"k": 10, "m": 20, "g": 30, "t": 40}.get(match[2], 0)


def _size(low: str, high: str) -> _Kind[int]:
    least, most = _parse_size(low), _parse_size(high)

    def parse(text: str) -> int:
        size = _parse_size(text)
        if not least <= size <= most:
            raise ValueError
        return size

    return _Kind(f"a size in bytes, or with k, m, g or t (powers of 1024), from {low} to {high}", parse)


def _choice(*choices: S) -> _Kind[S]:
    def parse(text: str) -> S:
        return choices[choices.index(cast("S", text))]

    return _Kind(f"{', '.join(choices[:-1])} or {choices[-1]}", parse)


def _bool(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text]


def _text(text: str) -> str:
    if text != text.strip():
        raise _RefusedError("must not begin or end with a space")
    return text


def _matching(form: str, pattern: str) -> _Kind[str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return _Kind(form, parse)


def _address(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError
    if match[1]:
        ipaddress.IPv6Address(match[1])
    return Address(match[1] or match[2], int(match[3]))


# As the database takes addresses.
_EMAIL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"


def _mailbox(text: str) -> str:
    _, address = parseaddr(text)
    if not re.fullmatch(_EMAIL, address) or not (text == address or text.endswith(f" <{address}>")):
        raise ValueError
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    good = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s@?#]", text)
    if not good or parts.port == 0:  # reading the port also raises if it is none
        raise ValueError
    return text


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text else []


def _networks(text: str) -> tuple[Network, ...]:
    return () if text == "none" else tuple(ipaddress.ip_network(item) for item in _list(text))


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(_list(text.lower()))
    if not all(re.fullmatch(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", o) for o in origins):
        raise ValueError
    return origins


def _log_options(text: str) -> tuple[tuple[str, Secret], ...]:
    options = {}
    for item in _list(text):
        key, equals, value = item.partition("=")
        if not key or not equals or key in options:
            raise ValueError
        options[key] = Secret(value)
    return tuple(options.items())


def _absolute(text: str) -> str:
    if not text.startswith("/") or not text.strip("/"):
        raise ValueError
    return text


def _connection(text: str) -> Secret:
    problems = dsn.check(text)
    if problems:
        raise _RefusedError(*problems)
    return Secret(text)


def _password(text: str) -> Secret:
    if len(text.encode()) > 72:
        raise ValueError
    return Secret(text)


def _token(text: str) -> Secret:
    if not re.fullmatch("[!-~]+", text):
        raise ValueError
    return Secret(text)


_ADDRESS = _Kind("host:port or :port", _address)
_BOOL = _Kind("true or false", _bool)
_DSN = _Kind(f"a connection string that pins search_path={dsn.SEARCH_PATH}", _connection, secret=True)
_HOST = _matching("a host name or an address", "[A-Za-z0-9._:-]+")
_LOG_OPTIONS = _Kind("key=value pairs, separated by commas", _log_options, secret=True)
_MAILBOX = _Kind("an e-mail address, with or without a name", _mailbox)
_NETWORKS = _Kind("networks (no host bits set) or addresses, separated by commas, or none", _networks)
_ORIGINS = _Kind("origins (`http://localhost:3000`), separated by commas", _origins)
_PATH = _Kind("a path", lambda text: Path(_text(text)))
_SECRET = _Kind("a secret", Secret, secret=True)
_TEXT = _Kind("a text", _text)
_URL = _Kind("an http or https URL without login, query or fragment", _url, secret=True)


# How variables are declared.


class _Computed(NamedTuple):
    """A default made from the values of other variables."""

    text: str
    compute: Callable[[Mapping[str, Any]], Any]


class _Condition(NamedTuple):
    """When a variable is required, judged by the texts of all variables that have one, by field name."""

    text: str
    holds: Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class _Variable:
    kind: _Kind[Any]
    about: str
    default: str | _Computed | None
    required: _Condition | None
    sample: str  # .env.example sets it to this
    at_most: str  # the field that it must not be above; a default is lowered to it
    setting: str  # the name, after `backend.`, under which the database is told
    heading: str  # begins a part of the printed files


def _name(field_name: str) -> str:
    return PREFIX + field_name.upper()


def _all_of(*others: str) -> str:
    return f"{', '.join(map(_name, others[:-1]))} and {_name(others[-1])}"


def _when(other: str, *texts: str) -> _Condition:
    return _Condition(f"with {_name(other)}={' or '.join(texts)}", lambda raw: raw.get(other) in texts)


def _with(*others: str) -> _Condition:
    return _Condition(f"with {' or '.join(map(_name, others))}", lambda raw: any(o in raw for o in others))


def _without(*others: str) -> _Condition:
    return _Condition(f"unless {_all_of(*others)} are given", lambda raw: not all(o in raw for o in others))


_ALWAYS = _Condition("", lambda raw: True)


def _var(
    kind: _Kind[T],
    about: str,
    *,
    default: str | _Computed | None = None,
    sample: str = "",
    at_most: str = "",
    setting: str = "",
    heading: str = "",
) -> T:
    """Declare a variable that always has a value; without a default it is required."""
    required = _ALWAYS if default is None else None
    variable = _Variable(kind, about, default, required, sample, at_most, setting, heading)
    return cast("T", field(metadata={"variable": variable}))


def _optional(
    kind: _Kind[T],
    about: str,
    *,
    default: _Computed | None = None,
    required: _Condition | None = None,
    sample: str = "",
    setting: str = "",
    heading: str = "",
) -> T | None:
    """Declare a variable that may have no value: None; the database is told whether it has one."""
    variable = _Variable(kind, about, default, required, sample, "", setting, heading)
    return cast("T | None", field(metadata={"variable": variable}))


def _same_as(other: str) -> _Computed:
    return _Computed(f"the value of {_name(other)}", lambda values: values[other])


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _workers(values: Mapping[str, Any]) -> int:
    most = values["postgres_max_conns"] // values.get("http_threads", 1)
    return int(max(1, min(max(2, _cores()), most)))


def _threads(values: Mapping[str, Any]) -> int:
    return int(max(1, min(4, values["postgres_max_conns"] // values["http_workers"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every variable, checked. Durations are seconds, sizes are bytes. Made by `load`."""

    service_name: str = _var(
        _TEXT, "The service's name in logs, metrics and traces.", default="galaxy-backend", heading="Service"
    )
    logging_level: Literal["debug", "info", "warn", "error"] = _var(
        _choice("debug", "info", "warn", "error"), "The least level that is logged.", default="info"
    )
    shutdown_timeout: float = _var(_duration("0s", "1h"), "How long each part may take to shut down.", default="30s")
    development: bool = _var(
        _BOOL,
        "This is development: a process may run as a superuser, and `serve` deploys the schema by itself.",
        default="false",
    )
    internal_token: Secret | None = _optional(
        _Kind("a secret of visible ASCII characters", _token, secret=True),
        "When set, callers of the internal group and of the push stream must show it.",
    )

    http_listen_addr: Address = _var(_ADDRESS, "Where REST and the probes listen.", default=":8080", heading="HTTP")
    http_read_timeout: float = _var(_duration("100ms", "10m"), "How long a request may take to arrive.", default="30s")
    http_write_timeout: float = _var(
        _duration("2s", "10m"),
        "How long an answer may take; calls to an engine on behalf of a request get a second less.",
        default="30s",
    )
    http_shutdown_timeout: float = _var(
        _duration("0s", "1h"),
        "How long requests in flight may take at shutdown.",
        default="15s",
        at_most="shutdown_timeout",
    )
    http_workers: int = _var(
        _whole(1, 256),
        "Processes of the api; each of its threads holds a connection to Postgres,"
        f" so workers × threads must not be above {_name('postgres_max_conns')}.",
        default=_Computed("as many as cores, but at least 2, as far as the connections suffice", _workers),
    )
    http_threads: int = _var(
        _whole(1, 256),
        "Threads in each process of the api.",
        default=_Computed("4, or as many as the connections suffice for", _threads),
    )
    http_trusted_proxies: tuple[Network, ...] = _var(
        _NETWORKS,
        "The proxies whose `X-Forwarded-For` counts; by default loopback and the private ranges.",
        default="127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
    )
    cors_allowed_origins: tuple[str, ...] = _var(
        _ORIGINS, "The origins whose pages may call, for browser clients in development.", default=""
    )

    grpc_push_listen_addr: Address = _var(_ADDRESS, "Where the push stream listens.", default=":8081", heading="Push stream")
    grpc_push_shutdown_timeout: float = _var(
        _duration("0s", "1h"),
        "How long sending the committed events may take at shutdown.",
        default="10s",
        at_most="shutdown_timeout",
    )
    grpc_push_tls_cert: Path | None = _optional(
        _PATH,
        "The push stream's certificate, in PEM; with it the stream is served over TLS only.",
        required=_with("grpc_push_tls_key", "grpc_push_tls_client_ca"),
    )
    grpc_push_tls_key: Path | None = _optional(_PATH, "The certificate's key, in PEM.", required=_with("grpc_push_tls_cert"))
    grpc_push_tls_client_ca: Path | None = _optional(
        _PATH, "Authorities, in PEM, one of which must have signed each client's certificate (mutual TLS)."
    )
    freshness_window: float = _var(
        _duration("1s", "24h"),
        "How long push events are kept for gateways that resume.",
        default="5m",
        setting="freshness_window",
    )

    postgres_dsn: Secret | None = _optional(
        _DSN,
        "How to reach Postgres: a URI with `?search_path=backend` or `?options=-csearch_path%3Dbackend`, or a"
        " keyword/value string; of several hosts the writable one is found.",
        required=_without("postgres_dsn_api", "postgres_dsn_push", "postgres_dsn_worker"),
        heading="Postgres",
    )
    postgres_dsn_api: Secret = _var(
        _DSN,
        "The api's own way to Postgres, with its login.",
        default=_same_as("postgres_dsn"),
        sample="postgresql://galaxy_api@localhost:5432/galaxy?search_path=backend",
    )
    postgres_dsn_push: Secret = _var(
        _DSN,
        "The streamer's own way to Postgres, with its login.",
        default=_same_as("postgres_dsn"),
        sample="postgresql://galaxy_push@localhost:5432/galaxy?search_path=backend",
    )
    postgres_dsn_worker: Secret = _var(
        _DSN,
        "The worker's own way to Postgres, with its login.",
        default=_same_as("postgres_dsn"),
        sample="postgresql://galaxy_worker@localhost:5432/galaxy?search_path=backend",
    )
    postgres_dsn_deploy: Secret | None = _optional(
        _DSN,
        "The way to Postgres of the login that deploys the schema.",
        default=_same_as("postgres_dsn"),
        sample="postgresql://galaxy_deploy@localhost:5432/galaxy?search_path=backend",
    )
    postgres_listen_dsn: Secret = _var(
        _DSN,
        "A direct way for LISTEN, where the others go through a pooler.",
        default=_same_as("postgres_dsn_push"),
    )
    postgres_conn_max_lifetime: float = _var(_duration("1s", "168h"), "How old a connection may become.", default="30m")
    postgres_max_conns: int = _var(
        _whole(1, 1000), "The most connections of one program, shared out over its processes.", default="25"
    )
    postgres_min_conns: int = _var(
        _whole(0, 1000),
        "The connections of one program that are kept open, shared out over its processes.",
        default="2",
        at_most="postgres_max_conns",
    )
    postgres_operation_timeout: float = _var(_duration("10ms", "10m"), "How long one statement may take.", default="5s")

    smtp_host: str = _var(_HOST, "The relay that takes our mail.", sample="smtp.example.org", heading="Mail")
    smtp_from: str = _var(_MAILBOX, "The sender of our mail.", sample="noreply@example.org")
    smtp_port: int = _var(_whole(1, 65535), "The relay's port.", default="587")
    smtp_username: str | None = _optional(
        _TEXT, "The login at the relay; without it mail is sent without one.", required=_with("smtp_password")
    )
    smtp_password: Secret | None = _optional(_SECRET, "The password of that login.", required=_with("smtp_username"))
    smtp_tls_mode: Literal["none", "starttls", "tls"] = _var(
        _choice("none", "starttls", "tls"),
        "How the connection to the relay is encrypted.",
        default="starttls",
    )
    smtp_timeout: float = _var(
        _duration("100ms", "5m"), "How long the relay may take to be reached and to take sender and recipients.", default="15s"
    )
    smtp_content_timeout: float = _var(
        _duration("100ms", "10m"),
        "How long it may take to accept what a mail says: relays look into it, and one that is not waited for gets it again.",
        default="2m",
    )
    mail_worker_interval: float = _var(
        _duration("100ms", "1h"), "How often the outbox is looked through without being woken.", default="2s"
    )
    mail_max_attempts: int = _var(
        _whole(1, 100),
        "Attempts after which a mail is given up.",
        default="8",
        setting="mail_max_attempts",
    )

    runtime_driver: Literal["docker", "swarm", "process"] = _var(
        _choice("docker", "swarm", "process"),
        "What runs the engines: Docker, Docker's cluster, or child processes (the development engine).",
        default="docker",
        heading="Engines",
    )
    docker_host: str = _var(
        _matching("a unix, tcp, http, https or ssh URL", r"(?:unix://|(?:tcp|http|https|ssh)://[^/\s])[^\s?#]+"),
        "Where the Docker daemon is.",
        default="unix:///var/run/docker.sock",
    )
    docker_network: str | None = _optional(
        _TEXT,
        "The network on which engines are reached.",
        required=_when("runtime_driver", "docker", "swarm"),
        sample="galaxy",
    )
    game_state_root: Path = _var(
        _Kind("an absolute path", lambda text: Path(_absolute(text))),
        "The directory that has a directory for each game's state.",
        sample="/var/lib/galaxy/games",
    )
    game_state_shared: bool = _var(
        _BOOL,
        "With `swarm`: whether every node has that same directory; else a game stays on the node where it was first started.",
        default="false",
    )
    engine_call_timeout: float = _var(
        _duration("100ms", "10m"),
        "How long an engine may take for a command, an order, a turn.",
        default="60s",
        setting="engine_call_timeout",
    )
    engine_probe_timeout: float = _var(
        _duration("100ms", "10m"), "How long an engine may take for a probe or a read.", default="5s"
    )
    runtime_worker_pool_size: int = _var(_whole(1, 256), "Runtime jobs that run at once.", default="4")
    runtime_job_queue_size: int = _var(
        _whole(1, 100000),
        "Runtime commands that may wait; above that they are refused with 503 `runtime_busy`.",
        default="64",
        setting="runtime_job_queue_size",
    )
    runtime_reconcile_interval: float = _var(
        _duration("100ms", "24h"), "How often what runs is compared with what should run.", default="60s"
    )
    runtime_image_pull_policy: Literal["if_missing", "always", "never"] = _var(
        _choice("if_missing", "always", "never"), "When an engine's image is pulled.", default="if_missing"
    )
    runtime_container_log_driver: str = _var(
        _matching("a name without spaces", r"[^\s]+"), "Docker's log driver for engines.", default="json-file"
    )
    runtime_container_log_opts: tuple[tuple[str, Secret], ...] = _var(_LOG_OPTIONS, "The log driver's options.", default="")
    runtime_container_cpu_quota: float = _var(_number(0.01, 1024), "CPUs for an engine.", default="2.0")
    runtime_container_memory: int = _var(_size("6m", "16t"), "Memory for an engine.", default="512m")
    runtime_container_pids_limit: int = _var(_whole(1, 4194304), "Processes and threads for an engine.", default="256")
    runtime_container_state_mount: str = _var(
        _Kind("an absolute path", _absolute),
        "Where an engine finds its state, in its container.",
        default="/var/lib/galaxy-game",
    )
    runtime_stop_grace_period: float = _var(
        _duration("0s", "10m"), "How long an engine may take to stop before it is killed.", default="10s"
    )
    stack_label: str | None = _optional(
        _TEXT,
        "The value of the label `galaxy.stack` on containers; tells several platforms on one host apart.",
    )

    auth_challenge_ttl: float = _var(
        _duration("1s", "24h"),
        "How long a login code is good for.",
        default="10m",
        setting="challenge_ttl",
        heading="Accounts",
    )
    auth_challenge_max_attempts: int = _var(
        _whole(1, 100),
        "Codes that may be tried for one challenge.",
        default="5",
        setting="challenge_max_attempts",
    )
    auth_challenge_throttle_window: float = _var(
        _duration("1s", "24h"),
        "The time over which an address's challenges are counted, for each network that asks.",
        default="60s",
        setting="challenge_throttle_window",
    )
    auth_challenge_throttle_max: int = _var(
        _whole(1, 100),
        "Live challenges of one address for one network in that time, above which the newest is used again.",
        default="3",
        setting="challenge_throttle_max",
    )
    auth_username_max_retries: int = _var(
        _whole(1, 100),
        "Random user names that are tried for a new account.",
        default="10",
        setting="username_max_retries",
    )
    auth_pepper: Secret | None = _optional(_SECRET, "The key of the stored hashes of login codes; the same for every process.")
    admin_bootstrap_user: str | None = _optional(_TEXT, "The first administrator, made at start if missing.")
    admin_bootstrap_password: Secret | None = _optional(
        _Kind("a secret of at most 72 bytes", _password, secret=True),
        "The first administrator's password.",
        required=_with("admin_bootstrap_user"),
    )
    geoip_db_path: Path = _var(_PATH, "The GeoLite2 Country file.", sample="/var/lib/galaxy/GeoLite2-Country.mmdb")

    lobby_sweeper_interval: float = _var(
        _duration("100ms", "24h"),
        "How often enrolments, invites and race names that are over are looked for.",
        default="60s",
        heading="Lobby, notifications and diplomatic mail",
    )
    lobby_pending_registration_ttl: float = _var(
        _duration("1s", "8760h"),
        "How long an earned race name waits to be registered.",
        default="720h",
        setting="pending_registration_ttl",
    )
    lobby_invite_default_ttl: float = _var(
        _duration("1s", "8760h"),
        "How long an invite is good for that does not say.",
        default="168h",
        setting="invite_default_ttl",
    )
    notification_admin_email: str | None = _optional(
        _matching("an e-mail address", _EMAIL),
        "Where administrators' notifications go; without it they are skipped and logged.",
    )
    notification_worker_interval: float = _var(
        _duration("100ms", "1h"),
        "How often undelivered notifications are looked for without being woken.",
        default="5s",
    )
    notification_max_attempts: int = _var(
        _whole(1, 100),
        "Attempts after which a notification's route is given up.",
        default="8",
        setting="notification_max_attempts",
    )
    diplomail_max_body_bytes: int = _var(
        _whole(1, 32768),
        "The longest body of a diplomatic message, in bytes of UTF-8.",
        default="4096",
        setting="diplomail_max_body_bytes",
    )
    diplomail_max_subject_bytes: int = _var(
        _whole(1, 8192),
        "The longest subject of a diplomatic message, in bytes of UTF-8.",
        default="256",
        setting="diplomail_max_subject_bytes",
    )
    diplomail_translator_url: str | None = _optional(
        _URL, "The LibreTranslate server; without it nothing is translated.", setting="diplomail_translator"
    )
    diplomail_translator_timeout: float = _var(_duration("100ms", "10m"), "How long one translation may take.", default="10s")
    diplomail_translator_max_attempts: int = _var(
        _whole(1, 100),
        "Attempts after which a message is delivered untranslated.",
        default="5",
        setting="diplomail_translator_max_attempts",
    )
    diplomail_worker_interval: float = _var(
        _duration("100ms", "1h"),
        "How often untranslated messages are looked for without being woken.",
        default="2s",
    )

    otel_traces_exporter: Literal["none", "otlp", "stdout"] = _var(
        _choice("none", "otlp", "stdout"), "Where traces go.", default="otlp", heading="Telemetry"
    )
    otel_metrics_exporter: Literal["none", "otlp", "stdout", "prometheus"] = _var(
        _choice("none", "otlp", "stdout", "prometheus"), "Where metrics go.", default="otlp"
    )
    otel_protocol: Literal["grpc", "http/protobuf"] = _var(
        _choice("grpc", "http/protobuf"), "How OTLP is spoken.", default="grpc"
    )
    otel_endpoint: str | None = _optional(_URL, "Where OTLP is sent; without it, where OpenTelemetry's SDK sends it by itself.")
    otel_prometheus_listen_addr: Address = _var(_ADDRESS, "Where Prometheus may scrape, with that exporter.", default=":9100")


_VARIABLES: dict[str, _Variable] = {f.name: f.metadata["variable"] for f in fields(Config)}
_FIELDS = {_name(field_name): field_name for field_name in _VARIABLES}


# What callers use.


def load(environ: Mapping[str, str]) -> Config:
    """Check the whole environment and return it as a `Config`, or raise ConfigError with every problem.

    An empty value counts as none. A name that begins with BACKEND_ and is not ours is a problem.
    """
    problems: list[str] = []
    given = {_FIELDS[name]: text for name, text in environ.items() if text and name in _FIELDS}
    raw = {f: v.default for f, v in _VARIABLES.items() if isinstance(v.default, str)} | given

    # Fields with a problem have no value, and what depends on them is not judged.
    values: dict[str, Any] = {}
    for field_name, variable in _VARIABLES.items():
        if field_name in raw:
            try:
                values[field_name] = _parse(variable.kind, raw[field_name])
            except _RefusedError as refused:
                problems += [f"{_name(field_name)} {problem}" for problem in refused.args]
        elif variable.required and variable.required.holds(raw):
            problems.append(f"{_name(field_name)} is required {variable.required.text}".rstrip())
        elif not isinstance(variable.default, _Computed):
            values[field_name] = None
    for field_name, variable in _VARIABLES.items():
        if field_name not in raw and isinstance(variable.default, _Computed):
            with suppress(KeyError):
                values[field_name] = variable.default.compute(values)
    for field_name, variable in _VARIABLES.items():
        limit = variable.at_most
        if field_name in values and limit in values and values[field_name] > values[limit]:
            if field_name in given:
                problems.append(
                    f"{_name(field_name)} must not be above {_name(limit)}: {raw[field_name]} is more than {raw[limit]}"
                )
            values[field_name] = values[limit]
    with suppress(KeyError):
        workers, threads, most = (values[f] for f in ("http_workers", "http_threads", "postgres_max_conns"))
        if workers * threads > most:
            problems.append(
                f"{_name('http_workers' if 'http_workers' in given else 'http_threads')} must not need more"
                f" connections than {_name('postgres_max_conns')}:"
                f" {workers} × {threads} is more than {most}"
            )

    for name in sorted(name for name, text in environ.items() if text and name.startswith(PREFIX)):
        if name not in _FIELDS:
            nearest = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0)
            problems.append(f"{name} is not a variable of ours; the nearest is {nearest[0]}")
    if problems:
        raise ConfigError(problems)
    return Config(**values)


def warnings(config: Config) -> list[str]:
    """Return what should not be so in production, each beginning with a variable's name."""
    return list(_warnings(config))


def database_settings(config: Config) -> dict[str, str]:
    """Return the settings of rules that live in the database, for `dsn.conninfo`.

    The names are `backend.…`; the values plain decimal numbers, durations in seconds, 1 or 0 for what is set or not.
    """
    return {
        f"backend.{variable.setting}": _plain(getattr(config, field_name))
        for field_name, variable in _VARIABLES.items()
        if variable.setting
    }


def read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a .env file of KEY=VALUE lines, empty lines, and lines that begin with #.

    A value may stand in single or double quotes, in which nothing is special; a # after a value belongs to
    it. Raises ValueError with the number of a line that is none of these.
    """
    found = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\"'].*)?)", text)
            if match is None:
                raise ValueError(f"{os.fspath(path)}, line {number}: not KEY=VALUE")
            found[match[1]] = match[2] or match[3] or match[4] or ""
    return found


def _parse(kind: _Kind[T], text: str) -> T:
    shown = "" if kind.secret else f", not {text[:80]!r}"
    # Line ends and the like come from files read into variables, and would fail late and far from here.
    if not text.isprintable():
        raise _RefusedError("has a line end or another character that cannot be printed")
    try:
        return kind.parse(text)
    except _RefusedError as refused:
        raise _RefusedError(*(f"{problem}{shown}" for problem in refused.args)) from None
    except (ValueError, KeyError):
        raise _RefusedError(f"must be {kind.form}{shown}") from None


def _warnings(config: Config) -> Iterator[str]:
    if config.auth_pepper is None:
        yield f"{_name('auth_pepper')} is not set: whoever reads the database can find out login codes"
    if config.internal_token is None:
        yield (f"{_name('internal_token')} is not set: whoever reaches the ports may use the internal group and the push stream")
    if config.smtp_tls_mode == "none" and config.smtp_username is not None:
        yield f"{_name('smtp_tls_mode')} is none: the password goes to the relay unencrypted"
    if config.admin_bootstrap_password is not None and config.admin_bootstrap_user is None:
        yield (f"{_name('admin_bootstrap_password')} is set without {_name('admin_bootstrap_user')}: no administrator is made")
    if config.development:
        yield f"{_name('development')} is set: the database's protection against our own programs is off"


def _plain(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return "0" if value is None else "1"
    return f"{Decimal(repr(value)).normalize():f}"


# The printed files.


def _form(variable: _Variable) -> str:
    if not variable.at_most:
        return variable.kind.form
    return f"{variable.kind.form}, at most {_name(variable.at_most)}, to which the default is lowered"


def _default(variable: _Variable) -> str:
    if variable.required:
        return f"required {variable.required.text}".rstrip()
    if isinstance(variable.default, _Computed):
        return variable.default.text
    return variable.default or "none"


def markdown() -> str:
    """Return docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Printed by `python -m app.config markdown`: edit app/config.py instead. -->",
        "",
        "The environment alone configures the programs. Each checks all of it at start, reports every",
        "problem with its variable's name, and does not start with one; `python -m app config` only checks.",
        "The run command for development also reads a `.env` file; `.env.example` is one to begin with.",
        "",
        f"- An empty value counts as none. A name that begins with `{PREFIX}` and is not listed here is a",
        f"  problem. (Kubernetes makes such names for a Service called `{PREFIX.strip('_').lower()}`: set",
        "  `enableServiceLinks: false`.)",
        "- Durations are written as in Go: `250ms`, `30s`, `5m`, `1h30m`, `720h`. The unit is required,",
        "  except for `0`.",
        "- No message shows a secret, a connection string, or another value that may hold a secret.",
        "- The database keeps what it is told within bounds of its own.",
    ]
    for field_name, variable in _VARIABLES.items():
        if variable.heading:
            lines += ["", f"## {variable.heading}", ""]
            lines += ["| variable | value | default | what |", "| --- | --- | --- | --- |"]
        default = _default(variable)
        if isinstance(variable.default, str) and variable.default:
            default = f"`{default}`"
        if variable.required:
            default = default.replace("required", "**required**", 1)
        about = variable.about
        if variable.setting:
            what = "The database is told" if variable.default is not None else "Whether it is set the database is told"
            about += f" {what} as `backend.{variable.setting}`."
        lines.append(f"| `{_name(field_name)}` | {_form(variable)} | {default} | {about} |")
    return "\n".join(lines) + "\n"


def env_example() -> str:
    """Return .env.example: it sets what must be set, and has every other variable in a comment."""
    lines = [
        "# Printed by `python -m app.config env`: edit app/config.py instead.",
        "# Copy it to .env, and change the copy.",
    ]
    for field_name, variable in _VARIABLES.items():
        if variable.heading:
            lines += ["", f"## {variable.heading}"]
        rule = _default(variable).replace("r", "R", 1) if variable.required else f"Default: {_default(variable)}"
        text = f"{variable.about} Value: {_form(variable)}. {rule}."
        lines += ["", *textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")]
        default = variable.default if isinstance(variable.default, str) else ""
        sets = f"{_name(field_name)}={variable.sample or default}"
        lines.append(sets if variable.sample else f"#{sets}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    printers = {"markdown": markdown, "env": env_example}
    if len(arguments) != 1 or arguments[0] not in printers:
        print(f"usage: python -m app.config {'|'.join(printers)}", file=sys.stderr)
        return 2
    print(printers[arguments[0]](), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
