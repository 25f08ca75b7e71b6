"""The development engine: a small game behind the whole contract of docs/engine.md; `python -m dev.engine` runs one."""
