"""Two network namespaces with a slow line between them, where the machine allows it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVER = "10.200.77.1"


def command(*words: str) -> None:
    """Runs a command of `ip` or `tc`; skips the test where it is not allowed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no command {words[0]}")
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def namespaces(delay_ms: int) -> Iterator[tuple[str, str]]:
    """The names of a server's and a client's namespace; the delay is that of one way."""
    names = f"apart-s-{os.getpid()}", f"apart-c-{os.getpid()}"
    lines = f"aps{os.getpid()}", f"apc{os.getpid()}"
    try:
        for name in names:
            command("ip", "netns", "add", name)
        pair = ("ip", "link", "add", lines[0], "type", "veth", "peer", "name", lines[1])
        command(*pair)
        for name, line, address in zip(names, lines, (SERVER, "10.200.77.2"), strict=True):
            command("ip", "link", "set", line, "netns", name)
            inside = ("ip", "netns", "exec", name)
            command(*inside, "ip", "address", "add", f"{address}/24", "dev", line)
            command(*inside, "ip", "link", "set", line, "up")
            slow = ("tc", "qdisc", "add", "dev", line, "root", "netem", "delay", f"{delay_ms}ms")
            if delay_ms:
                command(*inside, *slow)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
