"""Connection strings: what may be configured, and what libpq is given.

Accepted are URIs (`postgresql://…`, `postgres://…`) and libpq's keyword/value strings. A URI may pin the
search path the way pgx does, `?search_path=backend`, which libpq would refuse; it is turned into `options`
here. All else is libpq's own.

No message made here holds any part of the string: a misplaced character easily makes a piece of the password
look like a host, a port or a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SEARCH_PATH = "backend"

# As libpq reads it: the login ends at the first @ unless a / comes before; a ? after that begins the query.
_URI = re.compile(r"(?P<scheme>postgres(?:ql)?://)(?P<login>[^@/]*@)?(?P<place>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)

# `ssl` is not a keyword, but libpq takes `ssl=true` in a URI.
_KEYWORDS = frozenset(o.keyword.decode() for o in psycopg.pq.Conninfo.get_defaults()) | {"ssl"}

# Parameters of pgx that people bring along. They alone are named in messages: other unknown ones may be parts
# of a password.
_PGX_ONLY = frozenset(
    {
        "default_query_exec_mode",
        "description_cache_capacity",
        "pool_health_check_period",
        "pool_max_conn_idle_time",
        "pool_max_conn_lifetime",
        "pool_max_conn_lifetime_jitter",
        "pool_max_conns",
        "pool_min_conns",
        "pool_min_idle_conns",
        "prefer_simple_protocol",
        "statement_cache_capacity",
        "statement_cache_mode",
    }
)

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


class DsnError(ValueError):
    """A connection string that cannot be used; the message is meant to follow the name of its variable."""


def conninfo(
    dsn: str,
    *,
    application_name: str,
    settings: Mapping[str, str] = MappingProxyType({}),
    **parameters: str,
) -> str:
    """Return `dsn` as the keyword/value string that libpq and psycopg take.

    `settings` are server settings of the session (`backend.challenge_ttl`, `statement_timeout`); they come
    after those of the DSN and so win over them. `parameters` are libpq's and replace those of the DSN, except
    `options`, which is added. With several hosts the writable one is looked for, unless the DSN says
    otherwise. Raises DsnError; does not demand a pinned search path, as `check` does.
    """
    found, search_path = _read(dsn)
    options = [found.pop("options", ""), parameters.pop("options", "")]
    if search_path is not None:
        options.append(_option("search_path", search_path))
    options += [_option(name, value) for name, value in settings.items()]
    found |= parameters | {"application_name": application_name}
    if any(options):
        found["options"] = " ".join(filter(None, options))
    if _host_count(found) > 1:
        found.setdefault("target_session_attrs", "read-write")
    return make_conninfo(**found)


def check(dsn: str) -> list[str]:
    """Return what is wrong with a configured DSN, empty when it is good; never any part of the DSN itself."""
    try:
        found, search_path = _read(dsn)
    except DsnError as error:
        return [str(error)]
    problems = []
    if search_path is None:
        search_path = dict(_settings(found.get("options", ""))).get("search_path")
    if search_path is None:
        problems.append(f"does not pin the search path: add ?search_path={SEARCH_PATH} or ?options=-csearch_path%3D{SEARCH_PATH}")
    elif search_path.strip() not in (SEARCH_PATH, f'"{SEARCH_PATH}"'):
        problems.append(f"pins another search path: it must be search_path={SEARCH_PATH}")
    ports = found.get("port", "").split(",")
    if not all(re.fullmatch("[0-9]{0,5}", port) and 0 < int(port or 5432) < 65536 for port in ports):
        problems.append("has a port that is not a number from 1 to 65535")
    if len(ports) not in (1, _host_count(found)):
        problems.append(f"has {len(ports)} ports for {_host_count(found)} hosts")
    return problems


def with_login(dsn: str, user: str) -> str:
    """Return `dsn`, in the form it has, for another user; the password goes, since it was the first one's."""
    found, _ = _read(dsn)
    uri = _URI.fullmatch(dsn)
    if uri is None:
        found.pop("password", None)
        return make_conninfo(**found | {"user": user})
    pairs = [pair for pair in _pairs(uri) if unquote(pair.partition("=")[0]) not in ("user", "password")]
    query = "?" + "&".join(pairs) if pairs else ""
    return f"{uri['scheme']}{quote(user, safe='')}@{uri['place']}{query}"


def _pairs(uri: re.Match[str]) -> list[str]:
    return uri["query"].split("&") if uri["query"] else []


def _read(dsn: str) -> tuple[dict[str, str], str | None]:
    """Split a DSN into libpq's parameters and the search path given in pgx's way."""
    search_path = None
    uri = _URI.fullmatch(dsn)
    if uri is not None:
        if "@" in uri["place"]:
            raise DsnError("has an @ too many: percent-encode special characters of the user name and the password")
        pairs, unknown = [], []
        for number, pair in enumerate(_pairs(uri), 1):
            key, _, value = pair.partition("=")
            key = unquote(key)
            if key == "search_path":
                search_path = unquote(value)
                continue
            if key not in _KEYWORDS:
                unknown.append(key if key in _PGX_ONLY else f"number {number} after the question mark")
            pairs.append(pair)
        if unknown:
            raise DsnError(f"has parameters that libpq does not know: {', '.join(unknown)}")
        dsn = f"{uri['scheme']}{uri['login'] or ''}{uri['place']}?{'&'.join(pairs)}".removesuffix("?")
    try:
        if "\0" in dsn or "\0" in (search_path or ""):  # C would read no further
            raise DsnError("has a zero byte")
        found = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    except (psycopg.ProgrammingError, UnicodeError):
        # libpq's own message quotes the string, and with bad luck the password.
        if uri is not None:
            raise DsnError("is not a URI that libpq understands: are special characters percent-encoded?") from None
        raise DsnError(
            "is neither a URI (postgresql://…) nor a keyword/value string that libpq understands"
            f" (there the search path goes in options='-csearch_path={SEARCH_PATH}')"
        ) from None
    return found, search_path


def _host_count(found: Mapping[str, str]) -> int:
    return max(len(found.get(key, "").split(",")) for key in ("host", "hostaddr"))


def _option(name: str, value: str) -> str:
    """Write one setting for `options`, which the server splits at white space without a backslash before."""
    if not _SETTING_NAME.fullmatch(name) or "\0" in value:
        raise ValueError(f"not a setting that can be sent: {name!r}")
    return f"-c {name}=" + re.sub(r"([\\\s])", r"\\\1", value, flags=re.ASCII)


def _settings(options: str) -> Iterator[tuple[str, str]]:
    """Read the settings in `options` as the server does: `-c name=value`, `-cname=value`, `--name=value`."""
    words = [
        re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)
        for word in re.findall(r"(?:\\.|[^\\\s])+", options, flags=re.ASCII | re.DOTALL)
    ]
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == "-c":
            text = following
        elif word.startswith(("-c", "--")):
            text = word[2:]
        else:
            continue
        name, equals, value = text.partition("=")
        if equals:
            yield name.lower().replace("-", "_"), value
