"""Fast autoregressive time-series forecasting in JAX, with proof.

A functional JAX/Flax reimplementation of STRIDE, "Accelerating Time Series Foundation Models with
Speculative Decoding" (arXiv 2511.18191). The names listed in `__init__.pyi` are imported when they
are first used, so that the decoder alone needs neither flax nor pandas.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
