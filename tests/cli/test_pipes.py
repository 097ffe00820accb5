"""The command at the end of a pipe."""

import subprocess
import sys


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    """`stride-jax forecast data.csv --horizon 9 | head -2` would end in a traceback."""
    command = [sys.executable, "-m", "stride_jax.cli.main", "download", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
