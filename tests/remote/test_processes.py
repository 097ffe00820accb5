"""A server and a client in processes of their own: over the loopback, and over a slow line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import apart_client
from helpers.netns import SERVER, namespaces

from stride_jax.checkpoints.build import load_pair
from stride_jax.cli.main import main
from stride_jax.decoding.speculative import decode

CLIENT = Path(apart_client.__file__)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CLIENT.parents[2])}


@contextmanager
def served(*before: str, host: str = "127.0.0.1") -> Iterator[tuple[str, str]]:
    """Host and port of `stride-jax serve`; `before` is put in front of the command."""
    command = [*before, sys.executable, "-m", "stride_jax.cli.main", "serve"]
    command += ["--model", "beijing", "--host", host]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        host, port = server.stdout.readline().strip().rsplit(":", 1)
        yield host, port
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def client(*before: str, address: tuple[str, str]) -> dict:
    """What a client in a process of its own prints."""
    command = [*before, sys.executable, str(CLIENT), *address]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
    return json.loads(done.stdout)


def check_forecast(found: dict) -> None:
    """The forecast is that of one process."""
    target = load_pair("beijing", None).target
    key = jax.random.key(0)
    expected, info = decode(key, apart_client.CONTEXT, target=target, **apart_client.OPTIONS)
    np.testing.assert_allclose(found["forecast"], expected, atol=1e-4)
    assert found["rounds"] == int(info.rounds)
    assert not found["left_alone"]


@pytest.mark.slow
def test_two_processes_decode_as_one():
    """The served target would be another one, or would not answer."""
    with served() as address:
        check_forecast(client(address=address))


@pytest.mark.slow
@pytest.mark.parametrize("delay_ms", [0, 60])
def test_two_processes_in_networks_of_their_own(delay_ms):
    """A real network would show what the simulated one hides; skipped where none is allowed."""
    with namespaces(delay_ms) as (server, near):
        inside = ("ip", "netns", "exec")
        with served(*inside, server, host=SERVER) as address:
            found = client(*inside, near, address=address)
    check_forecast(found)
    assert found["seconds"] > 2 * delay_ms / 1000  # at least one round trip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid:0"),
        (["--model", "beijin"], "no checkpoint 'beijin'"),
    ],
)
def test_what_cannot_be_served_is_refused(capsys, flags, message):
    """A server would print a traceback in place of one line."""
    assert main(["serve", "--model", "beijing", *flags]) == 2
    assert message in capsys.readouterr().err
