"""Workers on machines of their own, as far as the network goes: network namespaces behind a bridge.

Nothing but the bridge leads from one to another or to the services, which run on the machine of the runner; there they
are forwarded to. Needs Linux, root and `ip`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.chaos.proxy import LOOPBACK, Proxy

if TYPE_CHECKING:
    from collections.abc import Sequence

IP = shutil.which("ip") or "/usr/sbin/ip"


class MachinesError(Exception):
    """No namespace can be made here."""


class Machines:
    """Network namespaces, numbered from 0, each with one cable into the bridge."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Two runs at a time meet neither at names, of which an interface's has 15 characters, nor at addresses.
        self._name = f"chaos{os.getpid() % 100_000}"
        self._network = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}"
        self._forwards: list[Proxy] = []

    @property
    def gateway(self) -> str:
        """The address of the runner's machine."""
        return f"{self._network}.1"

    def address(self, number: int) -> str:
        """A machine's address."""
        return f"{self._network}.{number + 10}"

    def command(self, number: int) -> Sequence[str]:
        """What to put before a command that shall run on a machine."""
        return (IP, "netns", "exec", self._space(number))

    def start(self) -> None:
        """Make them; raises :class:`MachinesError` where that isn't allowed."""
        _ip("link", "add", self._name, "type", "bridge")
        _ip("address", "add", f"{self.gateway}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        for number in range(self.count):
            space, cable = self._space(number), self._cable(number)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._name, "up")
            _ip("-n", space, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def stop(self) -> None:
        """Take them down, as far as they are there."""
        for number in range(self.count):
            _ip("netns", "delete", self._space(number), is_needed=False)
        _ip("link", "delete", self._name, is_needed=False)

    def unplug(self, number: int) -> None:
        """Let nothing through to a machine or from it; nobody is told."""
        _ip("link", "set", self._cable(number), "down")

    def plug_in(self, number: int) -> None:
        """Undo :meth:`unplug`."""
        _ip("link", "set", self._cable(number), "up")

    async def forward(self, *ports: int) -> None:
        """Let the machines reach services of the runner's machine, at its address and by the same ports."""
        for port in ports:
            forward = Proxy([(LOOPBACK, port)])
            await forward.start(self.gateway, port)
            self._forwards.append(forward)

    async def close(self) -> None:
        """Forward no more."""
        for forward in self._forwards:
            await forward.stop()

    def _space(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _cable(self, number: int) -> str:
        return f"{self._name}v{number}"


def _ip(*arguments: str, is_needed: bool = True) -> None:
    try:
        done = subprocess.run([IP, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MachinesError("There is no `ip` here (iproute2).") from error
    if done.returncode and is_needed:
        raise MachinesError(f"`ip {' '.join(arguments)}`: {done.stderr.strip()}")
