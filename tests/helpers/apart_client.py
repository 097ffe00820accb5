"""A client in a process of its own: `python apart_client.py HOST PORT` decodes and prints JSON."""

import json
import sys
import time

import jax
import numpy as np

from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import Maximal, WithoutBonus
from stride_jax.decoding.types import DecodeConfig
from stride_jax.remote.client import decode_apart
from stride_jax.remote.link import connect

CONTEXT = np.sin(np.arange(504) * 2 * np.pi / 24).astype(np.float32)[:, None]
OPTIONS = {
    "draft": seasonal_draft(24, 24),
    "sigma": 0.3,
    "config": DecodeConfig(horizon=96, num_draft=2),
    "rule": WithoutBonus(Maximal()),
}


def main() -> None:
    """Decodes twice over one link, and prints the forecast and the seconds of the second time."""
    link = connect(sys.argv[1], int(sys.argv[2]), timeout=60.0)
    for _ in range(2):
        start = time.monotonic()
        result = decode_apart(
            jax.random.key(0), CONTEXT, link=link, ahead=1, timeout=300.0, **OPTIONS
        )
        forecast = np.asarray(result.forecast).tolist()
        seconds = time.monotonic() - start
    link.close()
    facts = {"forecast": forecast, "rounds": int(result.info.rounds), "seconds": seconds}
    print(json.dumps(facts | {"left_alone": result.left_alone}))


if __name__ == "__main__":
    main()
