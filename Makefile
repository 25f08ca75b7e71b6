# `make help` lists what there is to do. Each target that needs it sets up the machine and .venv first (dev/setup.sh).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup run test demo reset image lock lint format typecheck proto schema config mails bench pgtap types push-bar soak

PY := .venv/bin/python
# The same on every machine: no address of a package index and no path gets into a lock file.
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" ../.venv/bin/pip-compile --quiet $(if $(UPGRADE),--upgrade) \
	--generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: ## Install what is missing: system packages, .venv
	@dev/setup.sh

run: setup ## Run the whole platform here, with embedded defaults; Ctrl-C stops it
	@$(PY) -m dev.run

demo: setup ## Play a whole story against what `make run` runs
	@$(PY) -m dev.demo

image: setup ## Build the image of the development engine; REGISTRY=none makes it of this machine's Python
	@$(PY) -m dev.engine_image $(if $(filter none,$(REGISTRY)),--without-registry)

soak: setup ## Mixed load; MINUTES=60, with the memory of every process and the invariants at the end
	$(PY) -m bench.soak --minutes $(or $(MINUTES),60)

reset: setup ## Stop what `make run` runs and forget its data
	@$(PY) -m dev.run reset

test: lint typecheck ## Check everything: style, types, pgTAP, all tests
	$(PY) -m pytest -n auto --dist loadgroup --durations=15 tests

lint: setup ## Check the style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup ## Correct the style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

typecheck: setup ## Check the types
	$(PY) -m mypy

pgtap: setup ## Run pgTAP alone; FILES="pgtap/api/games.sql …" for some of it
	@$(PY) -m dev.pgtap $(FILES)

bench: setup ## Measure everything, in a quarter of an hour, and write bench/report.md; SECTIONS="writes jobs …" prints some of it
	$(PY) -m bench $(SECTIONS)

push-bar: setup ## Kill streamers under load for minutes, and check that nothing is lost; ARGS="--seed N", "--backlog 1000000"
	$(PY) -m bench.push_bar $(ARGS)

lock: setup ## Pin what requirements/*.in name, with hashes; UPGRADE=1 takes newer versions
	cd requirements && $(COMPILE) -o dev.txt dev.in
	cd requirements && $(COMPILE) -c dev.txt -o run.txt run.in
	cd requirements && $(COMPILE) -c dev.txt -o trial.txt trial.in
	cd requirements && $(COMPILE) -o bench.txt bench.in

proto: setup ## Generate the code of proto/push/v1/push.proto and proto/notification.fbs
	$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proto/push/v1/push.proto
	flatc --python --gen-object-api --gen-onefile -o proto/notification/v1 proto/notification.fbs

schema: setup ## Write docs/schema.sql, docs/states.md, docs/flows.md and docs/error_codes.md anew
	$(PY) -m dev.schema_dump

mails: setup ## Take the pictures of every mail for docs/mail.md anew; needs Chromium
	@$(PY) -m dev.mail_pictures

types: setup ## Write web/api.d.ts, TypeScript's types of the contract anew; needs Node.js
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent types

config: setup ## Write docs/configuration.md, docs/metrics.md and .env.example anew
	$(PY) -m app.config markdown > docs/configuration.md
	$(PY) -m app.config env > .env.example
	$(PY) -m app.metrics > docs/metrics.md
