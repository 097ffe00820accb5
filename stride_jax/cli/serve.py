"""The command `stride-jax serve`: a target that verifies the proposals of clients."""

from __future__ import annotations

from stride_jax.cli.parser import Arguments
from stride_jax.errors import InputError


def run_serve(args: Arguments) -> None:
    """`stride-jax serve`: prints `host:port`, and serves until it is stopped.

    Raises:
        InputError: no such model, see `checkpoints.build.load_pair`, or an address that cannot be
            taken.
    """
    from stride_jax.checkpoints.build import load_pair
    from stride_jax.remote.link import listen
    from stride_jax.remote.server import serve

    if not 0 <= args.port < 1 << 16:
        raise InputError(f"--port must be from 0 to {(1 << 16) - 1}, got {args.port}.")
    try:
        listener = listen(args.host, args.port)
    except OSError as error:
        raise InputError(
            f"cannot listen at {args.host}:{args.port}: {error}; take another --port, or 0 for any "
            "free one."
        ) from error
    with listener:
        target = load_pair(args.model, None).target
        host, port = listener.getsockname()[:2]
        print(f"{host}:{port}", flush=True)
        serve(target, listener)
