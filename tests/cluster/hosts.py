"""Several hosts on one machine: each with its own network, processes, host name, /tmp, /dev/shm and home folder.

A host is a set of Linux namespaces with an sshd in it. All hosts are connected to a bridge in the namespace of one more
host, the ``desk``, where the user works. So the machine's own network is not changed, and no host can reach anything
outside. The hosts share the machine's files, its cores and its memory.

A host lives as long as its first process. That process dies with the process that made it, even by SIGKILL, and the
kernel then removes everything in it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount", "sshd", "ssh", "ssh-keygen", "rsync")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("net", "pid", "mnt", "uts")
_GUARD = 300.0  # seconds, against hanging

# The first process of a host. Its own arguments come as variables; it goes on when the network is there.
_INIT = r"""
set -eu
mount --bind "$ROOM/hosts" /etc/hosts
mount --bind "$ROOM/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
hostname "$NAME"
cp "$ROOM/sshd_config" "$ROOM/host_key" /run/sshd/
mount --rbind "$ROOM/home" "$HOME"
mount --rbind "$ROOM/tmp" /tmp
cd /
echo made
read -r _
[ -z "$SERVE" ] || "$SSHD" -D -e -f /run/sshd/sshd_config </dev/null &
echo ready
# The first process inherits every orphan: bash reaps them. A kill from outside ends it, and with it the host.
while :; do sleep 3600 & wait $! || :; done
"""

_SSHD_CONFIG = """\
HostKey /run/sshd/host_key
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 100
MaxSessions 100
PidFile none
Subsystem sftp internal-sftp
"""


def missing() -> str:
    """Why hosts cannot be made here: empty where they can."""
    if not sys.platform.startswith("linux"):
        return "hosts are Linux namespaces"
    if os.geteuid() != 0:
        return "making hosts needs root"
    absent = [tool for tool in _TOOLS if _tool(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (.ci/needs installs openssh-server, rsync and iproute2 on Debian)"
    attempt = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
    )
    if attempt.returncode:
        return f"this machine lets no one make namespaces: {attempt.stderr.strip()}"
    return ""


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)


@dataclass
class Host:
    """One host: its name is also the one it answers to.

    Attributes:
        address: its IPv4 address.
        pid: its first process, as the machine numbers it.
        room: the folder behind its /tmp and home.
    """

    name: str
    address: str
    pid: int
    room: Path
    _process: subprocess.Popen[str]
    _namespaces: dict[str, str]

    @property
    def home(self) -> Path:
        """Its home folder, as seen from the machine."""
        return self.room / "home"

    def kill(self) -> None:
        """Pull its plug: every process in it is gone, and so is its network. Nobody is told."""
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + _GUARD
        while Path(f"/proc/{self.pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


class Hosts:
    """Hosts by name, and the desk; a context manager that leaves nothing behind, whatever happened inside.

    Raises, on leaving, AssertionError where a process, a namespace or a network device is left.
    """

    def __init__(self, names: Sequence[str], visible: Sequence[Path] = (), desk: Sequence[Path] = ()) -> None:
        """
        Args:
            names: of the hosts.
            visible: folders that all of them, and the desk, see at the same place, even below /tmp or the home folder.
            desk: folders that the desk alone sees besides.
        """
        self.desk: Host
        self._names, self._visible, self._desk = names, visible, (*visible, *desk)
        self._hosts: dict[str, Host] = {}

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __enter__(self) -> Hosts:
        self._devices = _devices()
        self._folder = Path(tempfile.mkdtemp(prefix="clray-hosts-"))
        self._everyone: list[Host] = []
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        left = self._remove()
        assert not left, "left behind: " + ", ".join(left)

    # -- making ------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        addresses = {name: f"10.77.0.{10 + i}" for i, name in enumerate(self._names)}
        lines = ["127.0.0.1 localhost", "10.77.0.1 desk", *(f"{a} {name}" for name, a in addresses.items())]
        key = self._folder / "key"
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "desk", "-f", key)
        self.desk = self._start("desk", "10.77.0.1", key, lines, self._desk)
        for name, address in addresses.items():
            self._hosts[name] = self._start(name, address, key, lines, self._visible)
        self._in_desk("ip", "link", "add", "br0", "type", "bridge")
        self._in_desk("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
        self._in_desk("ip", "link", "set", "br0", "up")
        for host in self._everyone:
            _do(*_enter(host, "--net"), "ip", "link", "set", "lo", "up")
        for i, host in enumerate(self._hosts.values()):
            on_host = _enter(host, "--net")
            peer = ("peer", "name", "eth0", "netns", str(host.pid))
            self._in_desk("ip", "link", "add", f"port{i}", "type", "veth", *peer)
            self._in_desk("ip", "link", "set", f"port{i}", "master", "br0", "up")
            _do(*on_host, "ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
            _do(*on_host, "ip", "link", "set", "eth0", "up")
            # Programs find their own address by the route to the world: there is one, and it ends at the desk.
            _do(*on_host, "ip", "route", "add", "default", "via", self.desk.address)
            _do(*on_host, "ip", "route", "add", "unreachable", "169.254.0.0/16")
        for host in self._everyone:
            assert host._process.stdin is not None
            host._process.stdin.write("go\n")
            host._process.stdin.flush()
            _expect(host._process, "ready", host.name)
        for host in self._hosts.values():
            self._await_ssh(host)

    def _start(self, name: str, address: str, key: Path, lines: list[str], visible: Sequence[Path]) -> Host:
        room = self._folder / name
        for folder in ("tmp", "home/.ssh"):
            (room / folder).mkdir(parents=True)
        (room / "tmp").chmod(0o1777)
        (room / "home/.ssh").chmod(0o700)
        (room / "hosts").write_text("\n".join(lines) + "\n")
        (room / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # nobody answers there, and at once
        (room / "sshd_config").write_text(_SSHD_CONFIG)
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", room / "host_key")
        if name == "desk":
            shutil.copy(key, room / "home/.ssh/id_ed25519")
        else:
            shutil.copy(f"{key}.pub", room / "home/.ssh/authorized_keys")
            (room / "home/.bashrc").touch()
            (room / "home/.profile").write_text('PATH="$HOME/.local/bin:$PATH"\n')  # as Debian's
        home = os.path.expanduser("~")
        binds = ["set -eu"]
        for folder in visible:
            for hidden, behind in (("/tmp", room / "tmp"), (home, room / "home")):
                if folder.is_relative_to(hidden):
                    place = behind / folder.relative_to(hidden)
                    place.mkdir(parents=True, exist_ok=True)
                    binds.append(f"mount --rbind {shlex.quote(str(folder))} {shlex.quote(str(place))}")
        variables = {
            "NAME": name,
            "ROOM": str(room),
            "SSHD": _tool("sshd") or "",
            "SERVE": "" if name == "desk" else "1",
        }
        namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"]
        with open(room / "log", "w") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "bash", "-c", "\n".join(binds) + _INIT],
                env={"PATH": _SYSTEM_PATH, "HOME": home, "LANG": "C.UTF-8", **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        host = Host(name, address, 0, room, process, {})
        self._everyone.append(host)
        _expect(process, "made", name)
        host.pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        host._namespaces = {kind: os.readlink(f"/proc/{host.pid}/ns/{kind}") for kind in _NAMESPACES}
        return host

    def _in_desk(self, *command: str) -> None:
        _do(*_enter(self.desk, "--net"), *command)

    def _await_ssh(self, host: Host) -> None:
        deadline = time.monotonic() + _GUARD
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/{host.address}/22 && read -r -t 2 line <&3 && [[ $line == SSH-* ]]"]
        while subprocess.run([*_enter(self.desk, "--net"), *probe], capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{host.name}: its sshd does not answer: {(host.room / 'log').read_text()}")
            time.sleep(0.1)

    # -- using -------------------------------------------------------------------------------------------------

    def command(self, *command: str | Path, at: Host | None = None, folder: str | Path = "~") -> list[str]:
        """The full command that runs ``command`` at the desk, or at another host, in a folder of that host."""
        place = _enter(at or self.desk, "--net", "--mount", "--uts", "--ipc", "--pid")
        where = shlex.quote(os.path.expanduser(folder))
        return [*place, "bash", "-c", f'cd {where} && exec "$@"', "-", *map(str, command)]

    def environment(self, **variables: str) -> dict[str, str]:
        """An environment for ``command``: none of this process's own settings."""
        path = f"{Path(sys.executable).parent}:{_SYSTEM_PATH}"
        base = {"PATH": path, "HOME": os.path.expanduser("~"), "LANG": "C.UTF-8", "TERM": "dumb", "USER": "root"}
        return {**base, **variables}

    # -- removing ----------------------------------------------------------------------------------------------

    def _remove(self) -> list[str]:
        """Remove everything; what nevertheless is left."""
        for host in self._everyone:
            host._process.kill()
        for host in self._everyone:
            host.kill()
            for stream in (host._process.stdin, host._process.stdout):
                if stream is not None:
                    stream.close()
        ours = {(kind, inode): host.name for host in self._everyone for kind, inode in host._namespaces.items()}
        deadline = time.monotonic() + _GUARD
        while (left := _inside(ours)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left += [f"network device {name}" for name in sorted(_devices() - self._devices)]
        if not left:
            # What is mounted into a host's folder is mounted for that host alone: here the folder holds plain files.
            assert str(self._folder) not in Path("/proc/self/mountinfo").read_text()
            shutil.rmtree(self._folder)
        return left


def _inside(namespaces: dict[tuple[str, str], str]) -> list[str]:
    """The processes in some namespaces, given with the names of their hosts."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for kind in _NAMESPACES:
                if name := namespaces.get((kind, os.readlink(process / "ns" / kind))):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found.append(f"process {process.name} in {kind} of {name}: {command[:100]}")
                    break
        except OSError:
            continue  # it ended meanwhile
    return found


def _devices() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _enter(host: Host, *kinds: str) -> list[str]:
    return ["nsenter", "--target", str(host.pid), *kinds, "--"]


def _do(*command: str | Path) -> None:
    path = {"PATH": f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env={**os.environ, **path})
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")


def _expect(process: subprocess.Popen[str], word: str, name: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"host {name} did not start: it said {line!r} instead of {word!r}")
