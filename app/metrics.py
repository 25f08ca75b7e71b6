"""The one place where metrics are declared: instruments of OpenTelemetry's API.

They cost next to nothing until a program gives them somewhere to go (`app.telemetry`). Labels are of small, closed sets:
`path` is a route's template, never what was asked for.
"""

from opentelemetry import metrics

_meter = metrics.get_meter("galaxy")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _histogram(name: str, description: str) -> metrics.Histogram:
    return _meter.create_histogram(name, unit="s", description=description, explicit_bucket_boundaries_advisory=_SECONDS)


http_requests_total = _meter.create_counter(
    "http_requests_total", description="Answered requests, by group, method, path (template) and status."
)
http_request_duration_seconds = _histogram(
    "http_request_duration_seconds", "From the request's first byte in the app to its last out."
)
geo_lookups_total = _meter.create_counter(
    "geo_lookups_total", description="Look-ups of an address's country: found, unknown, error."
)
db_pool_acquires_total = _meter.create_counter("db_pool_acquires_total", description="Connections taken for a call.")
grpc_push_subscribers = _meter.create_up_down_counter("grpc_push_subscribers", description="Open push streams.")
grpc_push_events_total = _meter.create_counter("grpc_push_events_total", description="Events sent to subscribers, by kind.")
grpc_push_dropped_total = _meter.create_counter(
    "grpc_push_dropped_total", description="Events that left the window before a subscriber read them."
)
grpc_push_streams_ended_total = _meter.create_counter(
    "grpc_push_streams_ended_total",
    description="Streams that ended: left, replaced, forgotten (by a restored database), restarted, no_database, shut_down.",
)
push_commit_to_send_seconds = _histogram("push_commit_to_send_seconds", "From an event's transaction to its sending.")
mail_attempts_total = _meter.create_counter("mail_attempts_total", description="Attempts to send, by outcome.")
mail_dead_letters_total = _meter.create_counter("mail_dead_letters_total", description="Mails given up.")
notification_routes_total = _meter.create_counter(
    "notification_routes_total", description="Notifications that went on by a channel."
)
runtime_container_ops_total = _meter.create_counter(
    "runtime_container_ops_total", description="What was done to engines' containers, by operation and outcome."
)
runtime_health_probes_total = _meter.create_counter(
    "runtime_health_probes_total", description="Probes of running engines, by outcome."
)
jobs_total = _meter.create_counter("jobs_total", description="Jobs run, by task and outcome.")
