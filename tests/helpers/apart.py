"""Decodes with a target at the other end of a link, for the tests of `remote`."""

from typing import Any

from helpers.toys import BATCH, CONFIG, DRAFT, SIGMA, TARGET
from stride_jax.remote.client import ApartForecast, decode_apart
from stride_jax.remote.link import DirectLink, Link
from stride_jax.remote.messages import Message
from stride_jax.remote.server import conversation


def apart(key: Any, context: Any = BATCH, target: Any = TARGET, **options: Any) -> ApartForecast:
    """`decode_apart` with the toys; the link is a direct one to `target` unless one is given."""
    link: Link = options.pop("link", None) or DirectLink(conversation(target))
    chosen = {"draft": DRAFT, "sigma": SIGMA, "config": CONFIG, **options}
    return decode_apart(key, context, link=link, **chosen)


class Losing:
    """Loses the messages of one kind and number: the first `times` of them."""

    def __init__(self, kind: str, block: int | None = None, times: int = 1) -> None:
        self.kind, self.block, self.left = kind, block, times

    def __call__(self, message: Message) -> bool:
        wanted = message.kind == self.kind and message.fields.get("block") == self.block
        lost = bool(wanted and self.left > 0)
        self.left -= lost
        return lost
