#!/usr/bin/env bash
# Installs what `make run` and `make test` lack: system packages where apt-get is there and allowed, the Python
# packages of requirements/dev.txt in .venv. Quick when nothing is missing; may be run as often as one likes.
set -euo pipefail
cd "$(dirname "$0")/.."

# Two runs at once would install into each other.
exec 9<dev/setup.sh
if command -v flock >/dev/null; then flock 9; fi

oldest_postgres=15

say() { printf '%s\n' "$*" >&2; }

postgres_major() { # of the server that dev/cluster.py would take: that of PATH, else the newest
    local server
    for server in "$(command -v postgres || true)" $(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -rV); do
        [ -x "$server" ] && [ -x "$(dirname "$(readlink -f "$server")")/initdb" ] || continue
        local major
        major=$("$server" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        if [ "$major" -ge "$oldest_postgres" ]; then
            share=$("$(dirname "$(readlink -f "$server")")/pg_config" --sharedir 2>/dev/null || echo "/usr/share/postgresql/$major")
            printf '%s %s\n' "$major" "$share"
            return
        fi
    done
}

find_python() { # the first Python that is new enough and can make a virtual environment
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

venv_works() {
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the packages that are missing, by their Debian names; VERSION stands for the version of Postgres to be chosen.
missing_packages() {
    local found major share
    found=$(postgres_major)
    if [ -n "$found" ]; then
        major=${found%% *} share=${found#* }
        [ -e "$share/extension/pgtap.control" ] || echo "postgresql-$major-pgtap"
        [ -e "$share/extension/plpgsql_check.control" ] || echo "postgresql-$major-plpgsql-check"
    else
        printf '%s\n' postgresql-VERSION postgresql-VERSION-pgtap postgresql-VERSION-plpgsql-check
    fi
    command -v psql >/dev/null || [ -z "$found" ] || echo "postgresql-client-$major"
    command -v sqitch >/dev/null || echo sqitch
    if ! command -v perl >/dev/null || ! perl -MDBD::Pg -e 1 2>/dev/null; then echo libdbd-pg-perl; fi
    command -v pg_prove >/dev/null || echo libtap-parser-sourcehandler-pgtap-perl
    venv_works || [ -n "$(find_python)" ] || printf '%s\n' python3 python3-venv
    command -v flatc >/dev/null || echo flatbuffers-compiler
    command -v setpriv >/dev/null || echo util-linux
    command -v git >/dev/null || echo git
    command -v make >/dev/null || echo make
    # What some tests need that a laptop may do without; there they are skipped.
    if [ -n "${CI:-}" ]; then
        command -v dockerd >/dev/null || echo docker.io
        command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || echo docker-compose
        command -v npm >/dev/null || printf '%s\n' nodejs npm
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || echo chromium
        command -v promtool >/dev/null || echo prometheus
    fi
}

refuse() { # refuse WHY PACKAGES…
    say "$1 Install these yourself, by whatever names your system has for them:"
    shift
    say ""
    local package
    for package in "$@"; do
        case $package in
            postgresql-*-pgtap) say "  $package: pgTAP for that server" ;;
            postgresql-*-plpgsql-check) say "  $package: plpgsql_check for that server" ;;
            postgresql-client-*) say "  $package: psql" ;;
            postgresql-*) say "  $package: the Postgres server, version $oldest_postgres or newer, with initdb" ;;
            sqitch) say "  $package: Sqitch" ;;
            libdbd-pg-perl) say "  $package: Perl's DBD::Pg, which Sqitch needs" ;;
            libtap-parser-sourcehandler-pgtap-perl) say "  $package: pg_prove" ;;
            flatbuffers-compiler) say "  $package: flatc, the compiler of FlatBuffers" ;;
            python3*) say "  $package: Python 3.11 or newer with venv and ensurepip" ;;
            util-linux) say "  $package: setpriv" ;;
            docker.io) say "  $package: dockerd" ;;
            docker-compose) say "  $package: Docker Compose, either version" ;;
            *) say "  $package" ;;
        esac
    done
    exit 1
}

install_packages() { # install_packages PACKAGES…
    local root=()
    local shown=("${@//VERSION/$oldest_postgres}")
    [ -n "$(command -v apt-get || true)" ] && [ -e /etc/debian_version ] ||
        refuse "Something is missing, and this is not Debian or Ubuntu." "${shown[@]}"
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null ||
            refuse "Something is missing, and we may not install it: we are not root and sudo asks for a password." "${shown[@]}"
        root=(sudo -n)
    fi
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q)
    say "Installing: $*"
    "${apt[@]}" update >&2

    local version="" candidate
    if [[ "$*" == *VERSION* ]]; then
        for candidate in $(apt-cache --names-only search '^postgresql-[0-9]+$' | sed -E 's/^postgresql-([0-9]+) .*/\1/' | sort -rn); do
            [ "$candidate" -ge "$oldest_postgres" ] || break
            if apt-cache show "postgresql-$candidate-pgtap" "postgresql-$candidate-plpgsql-check" >/dev/null 2>&1; then
                version=$candidate
                break
            fi
        done
        [ -n "$version" ] ||
            refuse "This release has no Postgres $oldest_postgres or newer with pgTAP and plpgsql_check." "${shown[@]}"
        without_main_cluster "${apt[@]}"
    fi
    "${apt[@]}" install --no-install-recommends "${@//VERSION/$version}" >&2 ||
        refuse "apt-get could not install everything." "${@//VERSION/$version}"
}

# The first server package makes a cluster and starts it, which is not ours to do. Whoever has a setting keeps it.
without_main_cluster() { # without_main_cluster APT…
    local file=/etc/postgresql-common/createcluster.conf
    "$@" install --no-install-recommends postgresql-common >&2
    if ! grep -qE '^ *create_main_cluster' "$file" && ! compgen -G '/etc/postgresql/*/*' >/dev/null; then
        "${root[@]}" sed -i -E 's/^#(create_main_cluster) *=.*/\1 = false/' "$file"
        grep -q '^create_main_cluster' "$file" || echo 'create_main_cluster = false' | "${root[@]}" tee -a "$file" >/dev/null
    fi
}

if [ -n "${PYTHON:-}" ] && [ -z "$(find_python)" ]; then
    say "PYTHON=$PYTHON is not a Python 3.11 or newer with venv and ensurepip."
    exit 1
fi
mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
    install_packages "${missing[@]}" 9>&- # what it starts must not keep the lock
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -eq 0 ] || refuse "After the installation something is still missing." "${missing[@]//VERSION/$oldest_postgres}"
fi

lock=$(sha256sum requirements/dev.txt | cut -d' ' -f1)
if ! venv_works; then
    say "Making .venv"
    rm -rf .venv
    "$(find_python)" -m venv .venv
fi
if [ "$(cat .venv/.lock-sha256 2>/dev/null || true)" != "$lock" ]; then
    say "Installing the packages of requirements/dev.txt"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
    echo "$lock" >.venv/.lock-sha256
fi

if command -v npm >/dev/null; then
    lock=$(sha256sum web/package-lock.json | cut -d' ' -f1)
    if [ "$(cat web/node_modules/.lock-sha256 2>/dev/null || true)" != "$lock" ]; then
        say "Installing the packages of web/package-lock.json"
        # No package runs anything of its own here.
        if (cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2); then
            echo "$lock" >web/node_modules/.lock-sha256
        elif [ -n "${CI:-}" ]; then
            exit 1
        fi
    fi
fi
