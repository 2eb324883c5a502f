"""A mail provider on this machine, to which an example sends its mail."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class MailProvider:
    """Takes mail over HTTP, but none to the addresses in `refused`. `accepted` has the mail by its key."""

    def __init__(self) -> None:
        self.accepted: dict[str, Any] = {}
        self.refused: set[str] = set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                mail = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = mail["to"] in provider.refused
                if not refused:
                    provider.accepted.setdefault(self.headers["Idempotency-Key"], mail)
                content = b"no such mailbox" if refused else b"accepted"
                self.send_response(422 if refused else 202)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
