"""Plugins of the test suite."""

pytest_plugins = ["tests.postgres", "tests.services", "tests.docker_daemon", "tests.push", "tests.swarm"]
