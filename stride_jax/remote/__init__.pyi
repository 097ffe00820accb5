from stride_jax.remote.client import ApartForecast as ApartForecast
from stride_jax.remote.client import decode_apart as decode_apart
from stride_jax.remote.link import Conditions as Conditions
from stride_jax.remote.link import DirectLink as DirectLink
from stride_jax.remote.link import LinkClosedError as LinkClosedError
from stride_jax.remote.link import connect as connect
from stride_jax.remote.link import listen as listen
from stride_jax.remote.server import conversation as conversation
from stride_jax.remote.server import serve as serve

__all__ = [
    "ApartForecast",
    "Conditions",
    "DirectLink",
    "LinkClosedError",
    "connect",
    "conversation",
    "decode_apart",
    "listen",
    "serve",
]
