"""apt for programs that can write neither to the system nor as its user.

It keeps its lists and downloads in the workspace, and instead of dpkg it starts a program that
unpacks packages beside them. So `apt-get update`, `download` and `install` do what they can.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

SOURCES = "BERTH_APT_SOURCES"
"""The variable with sources for a system that has none of its own, one a line."""

STATUS = Path("/var/lib/dpkg/status")
_SYSTEM_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
_PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/games")
# The lock that an installation takes lies beside the status, so a link to that stands in for it.
_CONFIGURATION = """\
Dir::State "{place}/state";
Dir::State::status "{place}/dpkg/status";
Dir::Cache "{place}/cache";
Dir::Log "{place}/log";
Dir::Bin::dpkg "{place}/unpack";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::http::Pipeline-Depth "0";
DPkg::Lock::Timeout "120";
DPkg::Use-Pty "false";
"""
_OWN_SOURCES = 'Dir::Etc::sourcelist "{place}/sources.list";\n'
_UNPACK = """\
#!/bin/sh
# What apt calls for dpkg: packages are unpacked beside it, since the system cannot be written.
root={place}/root
case " $* " in
    *" --unpack "*) ;;
    *" --configure "* | *" --remove "* | *" --purge "* | *" --set-selections "*) exit 0 ;;
    *) exec dpkg "$@" ;;
esac
mkdir -p "$root" || exit
for given; do
    case $given in
        /*) find "$given" -name '*.deb' ;;
    esac
done | while read -r package; do
    dpkg-deb -x "$package" "$root" || exit
done || exit
echo "This system cannot be written: the packages were unpacked into $root, and none of their"
echo "scripts was run. Their programs are on PATH; for their libraries, set LD_LIBRARY_PATH to"
echo "$root"/usr/lib/*-linux-*
"""


class Apt:
    """apt's directories in a workspace.

    Args:
        place: Where they lie or will lie.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._is_prepared = False

    def prepare(self, sources: str) -> None:
        """Make them, once.

        Args:
            sources: What apt installs from where the system does not say it.
        """
        if self._is_prepared or shutil.which("apt-get") is None:
            return
        self._is_prepared = True
        for directory in ("state/lists/partial", "cache/archives/partial", "log", "dpkg"):
            (self._place / directory).mkdir(parents=True, exist_ok=True)
        configuration = _CONFIGURATION
        if sources and not any(each.exists() for each in _SYSTEM_SOURCES):
            configuration += _OWN_SOURCES
            (self._place / "sources.list").write_text(sources)
        status = self._place / "dpkg" / "status"
        status.unlink(missing_ok=True)
        if STATUS.exists():
            status.symlink_to(STATUS)
        else:
            status.touch()
        (self._place / "apt.conf").write_text(configuration.format(place=self._place))
        unpack = self._place / "unpack"
        unpack.write_text(_UNPACK.replace("{place}", str(self._place)))
        unpack.chmod(0o755)

    def variables(self) -> Mapping[str, str]:
        """What makes programs use them; none where there is no apt."""
        if not self._is_prepared:
            return {}
        path = os.environ.get("PATH", os.defpath)
        own = [str(self._place / "root" / each) for each in _PROGRAMS]
        return {"APT_CONFIG": str(self._place / "apt.conf"), "PATH": ":".join([path, *own])}
