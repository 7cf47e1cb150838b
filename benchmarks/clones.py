"""How long a large repository takes into a container, beside a plain clone of it."""

import asyncio
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, figure
from benchmarks.house import IDENTITY, House, add_task, no_past
from benchmarks.measures import BUDGET, MILLISECONDS, new_task, nothing
from benchmarks.peer import PEER, PEER_PORT, peer
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import NewTask
from orchestrator.domain.workspace import Workspace, workspace_of
from orchestrator.flow.hands import Hands
from orchestrator.flow.inherit import Inherit
from orchestrator.flow.supply import Supply
from orchestrator.gateway.mirrors import GitRepositories

MEGABYTES = 200
BLOBS = 400
NAME = "large"
URL = f"https://{PEER}:{PEER_PORT}/{NAME}"
# git's own server, in a process of its own, behind no more than TLS and a copy of its output.
SERVER = """
import os, ssl, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.headers.get("Content-Length", 0))
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": sys.argv[3], "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(length),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        with subprocess.Popen(
            ["git", "http-backend"], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as git:
            git.stdin.write(self.rfile.read(length))
            git.stdin.close()
            head = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n"
            while head[-4:] != b"\\r\\n\\r\\n":
                head += git.stdout.readline()
            self.wfile.write(head)
            while chunk := git.stdout.read1(2**18):
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(chunk), chunk))
            self.wfile.write(b"0\\r\\n\\r\\n")
    do_POST = do_GET
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[4])
server.handle_error = lambda *_: None  # git hangs up as soon as it has the whole pack
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"""


async def clones(parts: House, directory: Path, rounds: int) -> list[Figure]:
    """A clone in a container through a tunnel, and a task's way to its tree, beside a plain one."""
    await asyncio.to_thread(_make_repository, directory / "served" / NAME)
    certificate = _make_certificate(directory)
    floors, tunnelled, prepared = [], [], []
    async with peer(SERVER, str(directory / "served"), str(certificate.with_suffix(".pem"))):
        for number in range(rounds):
            floors.append(await _plain(directory / f"plain-{number}"))
            tunnelled.append(await _inside(parts, number))
            prepared.append(await _cold(parts, directory / f"cold-{number}", certificate))
    floor = ("the same clone outside, direct", median(floors))
    size = f"{MEGABYTES} MB"
    return [
        figure(
            f"clone of {size} through the gateway",
            "ms",
            tunnelled,
            target=1.3 * median(floors),
            floor=floor,
        ),
        figure(
            f"{size} by mirror and bundle to a task's tree",
            "ms",
            prepared,
            target=3 * median(floors),
            floor=floor,
        ),
    ]


async def _plain(path: Path) -> float:
    """Milliseconds of a clone on this machine."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_SSL_NO_VERIFY": "1"}
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "git", "clone", "-q", URL, str(path), env=environment
    )
    if await process.wait() != 0:
        raise RuntimeError("the plain clone failed")
    passed = (time.perf_counter() - began) * MILLISECONDS
    await asyncio.to_thread(shutil.rmtree, path)
    return passed


async def _inside(parts: House, number: int) -> float:
    """Milliseconds of the same command in a container."""
    task = await new_task(parts)
    path = f"/workspace/plain-{number}"
    command = f"GIT_SSL_NO_VERIFY=1 git clone -q {URL} {path}"
    async with Hands(
        task, parts.generation, parts.lease, parts.supply, nothing, admit=parts.admit
    ) as hands:
        await hands.tools()
        began = time.perf_counter()
        said = await hands.call("bash", {"command": f"{command} && echo cloned"})
        passed = (time.perf_counter() - began) * MILLISECONDS
        if "cloned" not in said.text:
            raise RuntimeError(f"the clone in the container failed: {said.text}")
        await hands.call("bash", {"command": f"rm -rf {path}"})
    return passed


async def _cold(parts: House, directory: Path, certificate: Path) -> float:
    """Milliseconds from no mirror to a task's tree; the container stands already."""
    repositories = _repositories(parts, directory, certificate)
    supply = Supply(repositories, Inherit(parts.tasks, no_past))
    workspace = workspace_of([parse_repository_url(URL)])
    generation = await parts.leases.acquire(workspace.id)
    async with parts.lease.hold(workspace, generation) as leased:
        began = time.perf_counter()
        task = await _new_task(parts, repositories, workspace)
        await supply(task, leased.worker)
        passed = (time.perf_counter() - began) * MILLISECONDS
    await parts.leases.release(workspace.id, generation)
    await parts.runtime.remove(workspace.container_name)
    await asyncio.to_thread(shutil.rmtree, directory)
    return passed


async def _new_task(parts: House, repositories: GitRepositories, workspace: Workspace) -> NewTask:
    repository = workspace.repositories[0]
    start = await repositories.start_point(repository.url, repository.name, None)
    task = NewTask(secrets.token_hex(8), "measure", workspace, (start,), (), BUDGET)
    await add_task(parts, task)
    return task


def _repositories(parts: House, directory: Path, certificate: Path) -> GitRepositories:
    """Mirrors of which none is there yet."""
    settings = parts.settings
    return GitRepositories(
        directory,
        allow_paths=(),
        allow_hosts=[f"{PEER}:{PEER_PORT}"],
        max_repository_bytes=settings.max_repository_bytes,
        timeout_seconds=settings.git_timeout_seconds,
        max_file_bytes=settings.max_file_bytes,
        environment={**os.environ, "GIT_SSL_CAINFO": str(certificate)},
    )


def _make_repository(path: Path) -> None:
    """A bare repository of blobs that nothing makes smaller, in one pack."""
    tree = path.with_name("tree")
    tree.mkdir(parents=True)
    for number in range(BLOBS):
        (tree / f"blob{number}").write_bytes(os.urandom(MEGABYTES * 1_000_000 // BLOBS))
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["commit", "-q", "-m", "start"],
        ["repack", "-q", "-a", "-d"],
        ["clone", "-q", "--bare", ".", str(path)],
    ):
        subprocess.run(["git", *IDENTITY, *command], cwd=tree, check=True)
    shutil.rmtree(tree)


def _make_certificate(directory: Path) -> Path:
    """A certificate for the server; its key lies beside it, with it in one file."""
    certificate, key = directory / "server.crt", directory / "server.key"
    subject = ("-subj", "/CN=benchmark", "-addext", f"subjectAltName=IP:{PEER}")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *subject, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    certificate.with_suffix(".pem").write_text(key.read_text() + certificate.read_text())
    return certificate
