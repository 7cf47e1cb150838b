"""A worker that runs Python code it is sent, to look at a container from within.

It is started as `python3 -c <this file>` inside a container, so it uses the standard library only.
"""

import json
import os
import socketserver
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """GET answers as `/health` does, POST runs the body as a program."""

    def do_GET(self) -> None:
        self._answer({"status": "ok", "pid": os.getpid()})

    def do_POST(self) -> None:
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        self._answer({"code": done.returncode, "out": done.stdout, "err": done.stderr})

    def address_string(self) -> str:
        return "orchestrator"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class SocketServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on a unix socket."""


class PortServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens on a port."""


def main() -> None:
    """Serve for ever."""
    server: socketserver.BaseServer
    path = os.environ.get("BERTH_WORKER_SOCKET")
    if path:
        server = SocketServer(path, Handler)
        Path(path).chmod(0o666)
    else:
        server = PortServer(("0.0.0.0", int(os.environ["BERTH_WORKER_PORT"])), Handler)
    print("stand-in is listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
