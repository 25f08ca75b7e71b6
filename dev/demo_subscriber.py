"""A gateway's push client that prints what it receives as JSON lines, first how the stream began. For `make demo`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dev.push_client import PushClient, decode_payload


def main() -> None:
    """Subscribe for ever: TARGET CLIENT_ID CURSOR, the token in INTERNAL_TOKEN."""
    target, client_id, cursor = sys.argv[1:]
    with PushClient(target, client_id, os.environ.get("INTERNAL_TOKEN"), cursor) as client:
        client.connect()
        print(json.dumps({"resume": client.resume}), flush=True)
        for event in client:
            is_client_event = event.HasField("client_event")
            told: Any = event.client_event if is_client_event else event.session_invalidation
            print(
                json.dumps(
                    {
                        "cursor": event.cursor,
                        "user_id": told.user_id,
                        "device_session_id": told.device_session_id,
                        "kind": getattr(told, "kind", ""),
                        "reason": getattr(told, "reason", ""),
                        "payload": decode_payload(told.kind, told.payload) if is_client_event else {},
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
