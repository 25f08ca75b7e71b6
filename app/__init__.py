"""The HTTP side of the service, and what every program of it shares: configuration, logs, metrics."""
