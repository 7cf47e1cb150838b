"""A place for the service in which every secret it holds, or could reach, is a canary."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.support.canaries import Canary, Output, mint
from tests.support.canary_outputs import text_output
from tests.support.forges import serve_app
from tests.support.overheard import Overheard, overheard
from tests.support.package_index import PACKAGE, PackageIndex, package_index, self_signed
from tests.support.publishing import House, running_house

PROXIED = "203.0.113.9"
"""A host that is reached by way of the machine's proxy."""

TOKEN_VARIABLE = "OTHER_GIT_TOKEN"


@dataclass
class Canaries:
    """What is planted, each by the place it is planted in."""

    minted: dict[str, Canary] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        """The value of a canary, which is made when it is first asked for."""
        return self.minted.setdefault(name, mint(name)).value

    def all(self) -> Sequence[Canary]:
        """All that were planted so far."""
        return tuple(self.minted.values())


@dataclass
class Stranger:
    """A server that nobody should tell anything; or a proxy, which is told its own secret only."""

    url: str = ""
    told: list[bytes] = field(default_factory=list)


@dataclass
class Planted:
    """A house, an index, a model and a proxy, with canaries for all of them."""

    house: House
    index: PackageIndex
    model: Overheard
    stranger: Stranger
    proxy: Stranger
    home: Path
    database_url: str
    canaries: Canaries
    neighbours: Canaries

    def environment(self) -> dict[str, str]:
        """Settings and other variables of a service."""
        own = self.canaries
        index = self.index.host
        return {
            "HOME": str(self.home),
            "LLM_API_KEY": f"sk-{own['model key']}",
            "GPT_OSS_URL": self.model.url,
            "DATABASE_URL": self.database_url,
            "BERTH_GIT_CREDENTIALS": str(self._credentials()),
            "BERTH_SECRETS_DIR": str(self._work_secrets()),
            "BERTH_ALLOW_HOSTS": f"{self.house.server.host},{index},{PROXIED}",
            "BERTH_EGRESS_ALLOW": PROXIED,
            "BERTH_EGRESS_PRESETS": "pip,npm",
            "BERTH_EGRESS_CA_FILE": str(self._certificates()),
            "BERTH_LOG_LEVEL": "debug",
            "PIP_INDEX_URL": f"http://reader:{own['pip index password']}@{index}/simple/",
            "PIP_EXTRA_INDEX_URL": f"https://me:{own['pip extra index password']}@{index}/more/",
            "PIP_TRUSTED_HOST": self.index.host.partition(":")[0],
            "npm_config_registry": f"http://me:{own['npm registry password']}@{index}/npm/",
            "HTTP_PROXY": self.proxy.url.replace("//", f"//me:{own['proxy password']}@"),
            "HTTPS_PROXY": self.proxy.url.replace("//", f"//me:{own['proxy password']}@"),
            "NO_PROXY": "127.0.0.1,127.0.0.2",
            TOKEN_VARIABLE: own["git token in a variable"],
            "SOMETHING_ELSE": own["another variable of the service"],
        }

    def received(self) -> list[Output]:
        """What each party outside was told."""
        server, forge = self.house.server, self.house.forge
        return [
            text_output("git server's log", "\n".join(server.requests)),
            text_output("git server's authorizations", "\n".join(map(str, server.authorizations))),
            text_output("forge's log", "\n".join(forge.requests) + repr(forge.pulls)),
            text_output("index's log", "\n".join(self.index.asked)),
            text_output("model's headers", repr(self.model.headers)),
            text_output("model's requests", repr(self.model.requests)),
            *(Output("proxy's log", head) for head in self.proxy.told),
            *(Output("stranger's log", request) for request in self.stranger.told),
        ]

    def _credentials(self) -> Path:
        own, server = self.canaries, self.house.server
        kept = self.home / "token"
        kept.write_text(own["git token in a file of its own"])
        kept.chmod(0o600)
        path = self.home / "credentials.toml"
        path.write_text(
            f'[[credential]]\nurl = "{server.url("acme/private")}"\nforge = "{self.house.kind}"\n'
            f'api_url = "{self.house.api_url}"\ntoken = "{self.house.token}"\n'
            f'[[credential]]\nurl = "{server.url("acme/second")}"\ntoken = "{self.house.token}"\n'
            f'[[credential]]\nurl = "{server.url("filed")}"\ntoken_file = "{kept}"\n'
            f'[[credential]]\nurl = "{server.url("variable")}"\ntoken_env = "{TOKEN_VARIABLE}"\n'
            f'[[credential]]\nurl = "https://forge.invalid"\n'
            f'token = "{own["git token of another host"]}"\n'
        )
        path.chmod(0o600)
        return path

    def _work_secrets(self) -> Path:
        directory = self.home / "secrets"
        directory.mkdir(mode=0o700)
        path = directory / "work.toml"
        value = self.canaries["secret of the work"]
        path.write_text(f'value = "{value}"\nurls = ["https://api.invalid/v1"]\n')
        path.chmod(0o600)
        return directory

    def _certificates(self) -> Path:
        """Certificates in a file that has more in it than these, as some people's do."""
        path = self_signed(self.home / "certificates.pem")
        secret = self.canaries["private key beside certificates"]
        path.write_text(f"{path.read_text()}\n-----BEGIN PRIVATE KEY-----\n{secret}\n")
        return path


@asynccontextmanager
async def planted(
    directory: Path, model_url: str, postgres_url: str, host: str
) -> AsyncIterator[Planted]:
    """Start all that a service talks to, and plant canaries in everything it could give away.

    Args:
        directory: For files; others than we may read it, so that walls are all that keeps them out.
        model_url: A model endpoint.
        postgres_url: A database whose server takes any password.
        host: Loopback address for the git server.
    """
    own, neighbours = Canaries(), Canaries()
    home = directory / "home"
    _furnish(home, own)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(
            running_house(directory / "house", "gitea", host, own["git and forge token"])
        )
        private = house.source()
        private.commit("needs a package", {"requirements.txt": f"{PACKAGE}==1.0\n"})
        private.git("push", "--quiet", "origin", "HEAD:main")
        second = house.source("second")
        named = f"{neighbours['name of a file next door']}.txt"
        second.commit(
            f"about {neighbours['message of a commit next door']}",
            {"private.txt": neighbours["file next door"], named: "named\n"},
        )
        branch = neighbours["branch next door"]
        second.git("push", "--quiet", "origin", "HEAD:main", f"HEAD:refs/heads/{branch}")
        model = await stack.enter_async_context(overheard(model_url))
        index = stack.enter_context(package_index())
        stranger = await stack.enter_async_context(_stranger())
        proxy = await stack.enter_async_context(_proxy())
        address = postgres_url.replace("://berth@", f"://berth:{own['database password']}@")
        assert address != postgres_url
        yield Planted(house, index, model, stranger, proxy, home, address, own, neighbours)


def _furnish(home: Path, own: Canaries) -> None:
    """What lies about in the home directory of somebody who administers a machine."""
    login = base64.b64encode(f"me:{own['docker login']}".encode()).decode()
    for path, text in {
        "notes.txt": own["a file at home"],
        ".netrc": f"machine 127.0.0.1 login me password {own['netrc']}\n"
        f"default login me password {own['netrc, for all hosts']}\n",
        ".git-credentials": f"http://me:{own['stored git credentials']}@127.0.0.2\n",
        ".gitconfig": "[credential]\n\thelper = store\n[http]\n"
        f"\textraHeader = X-Secret: {own['gitconfig']}\n",
        ".npmrc": f"//127.0.0.2/:_authToken={own['npmrc']}\n",
        ".config/pip/pip.conf": f"[global]\nproxy = http://me:{own['pip.conf']}@127.0.0.1:9\n",
        ".ssh/id_ed25519": own["ssh key"],
        ".docker/config.json": json.dumps({"auths": {"r.example": {"auth": login}}}),
        ".config/gcloud/application_default_credentials.json": own["cloud credentials"],
        ".pgpass": f"*:*:*:*:{own['pgpass']}\n",
    }.items():
        file = home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)
    (home / ".pgpass").chmod(0o600)  # libpq ignores it otherwise


@asynccontextmanager
async def _stranger() -> AsyncIterator[Stranger]:
    stranger = Stranger()

    async def answer(request: Request) -> Response:
        said = [f"{request.method} {request.url}".encode()]
        said += [name + b": " + value for name, value in request.headers.raw]
        stranger.told.append(b"\n".join((*said, await request.body())))
        return PlainTextResponse("hello")

    methods = ["GET", "POST", "PUT", "PATCH", "HEAD", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    async with serve_app(app) as stranger.url:
        yield stranger


@asynccontextmanager
async def _proxy() -> AsyncIterator[Stranger]:
    """A proxy that answers itself, and sends back what it gets where HTTP says so."""
    proxy = Stranger()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        proxy.told.append(head)
        body = head if head.startswith(b"TRACE") else b"from the proxy"
        length = str(len(body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + length)
        writer.write(b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
