"""A stand-in for LibreTranslate, for a laptop: `POST /translate` answers with the text, marked with the language asked for.

    python -m dev.translator [--port 5000]

It translates nothing. It is there so that what translation does to a message can be seen without a translator's models.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGEST = 1 << 20


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        try:
            asked = json.loads(self.rfile.read(min(size, LARGEST)))
            answer = {"translatedText": f"[{asked['target']}] {asked['q']}"}
        except (ValueError, KeyError, TypeError):
            answer = {"error": "Say q, source and target."}
        body = json.dumps(answer).encode()
        self.send_response(200 if "translatedText" in answer and self.path == "/translate" else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """What people write to each other is in no log."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.translator")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    # Blocked in every thread, so that only the wait below takes them.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"Translations at http://127.0.0.1:{port}/translate", flush=True)
    signal.sigwait(signals)
    server.shutdown()


if __name__ == "__main__":
    main()
