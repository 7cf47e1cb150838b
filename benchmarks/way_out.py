"""How fast bytes come into a container through the gateway."""

import asyncio
from statistics import median

from benchmarks.figures import Figure, figure
from benchmarks.house import House
from benchmarks.measures import MILLISECONDS, new_task, nothing
from benchmarks.peer import PEER, PEER_PORT, peer
from orchestrator.flow.hands import Hands

MEBIBYTES = 200
URL = f"http://{PEER}:{PEER_PORT}/"
CURL = ("curl", "-sS", "-o", "/dev/null", "-w", "%{size_download} %{time_total}")
SERVER = f"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str({MEBIBYTES} * 2**20))
        self.end_headers()
        for _ in range({MEBIBYTES}):
            self.wfile.write(bytes(2**20))
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


async def transfer(parts: House, rounds: int) -> Figure:
    """A download in a container through a tunnel, beside the same one outside and direct."""
    task = await new_task(parts)
    samples, floors = [], []
    admit = parts.admit
    async with (
        peer(SERVER),
        Hands(task, parts.generation, parts.lease, parts.supply, nothing, admit=admit) as hands,
    ):
        for _ in range(rounds):
            floors.append(_milliseconds(await _direct()))
            command = " ".join([*(f"'{word}'" for word in CURL), "--proxytunnel", URL])
            said = await hands.call("bash", {"command": command})
            samples.append(_milliseconds(said.text.rpartition("stdout:\n")[2]))
    name = f"{MEBIBYTES} MiB through the gateway"
    return figure(name, "ms", samples, target=1_000, floor=("the same, direct", median(floors)))


async def _direct() -> str:
    process = await asyncio.create_subprocess_exec(
        *CURL, "--noproxy", "*", URL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


def _milliseconds(said: str) -> float:
    size, seconds = said.split()[:2]
    if int(size) != MEBIBYTES * 2**20:
        raise RuntimeError(f"the download was cut off: {said}")
    return float(seconds) * MILLISECONDS
