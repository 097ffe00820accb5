"""Foundation models at their released sizes, with random parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stride_jax.models import fracast, patchfm, timer, timesfm, toto
from stride_jax.models.fracast import params as fracast_params
from stride_jax.models.fracast.config import FracastConfig
from stride_jax.models.patchfm import module as patchfm_module
from stride_jax.models.patchfm.config import PatchFMConfig
from stride_jax.models.patchfm.nine_paths import nine_paths_process
from stride_jax.models.timer import module as timer_module
from stride_jax.models.timer.config import TimerConfig
from stride_jax.models.timesfm import module as timesfm_module
from stride_jax.models.timesfm.config import TimesFMConfig
from stride_jax.models.toto import module as toto_module
from stride_jax.models.toto.config import TotoConfig


class Subject(NamedTuple):
    """A family with the context it is timed on; of PatchFM the median path, or nine paths."""

    family: Any
    config: type
    init: Callable[..., Any]
    context: int
    nine_paths: bool = False

    def process(self, config: Any, params: Any) -> Any:
        """The process that is timed."""
        make = nine_paths_process if self.nine_paths else self.family.make_process
        return make(config, params)


def _fracast(_: Any, config: FracastConfig) -> Any:
    """Random parameters of Fracast-0, whose module has no initialisation of its own."""
    random = np.random.default_rng(0)
    arrays = {
        one.names[0]: random.normal(scale=0.1, size=one.shape).astype(np.float32)
        for one in fracast_params.table(config)
    }
    return fracast_params.read(arrays)[1]


SUBJECTS = {
    "fracast": Subject(fracast.FAMILY, FracastConfig, _fracast, 2048),
    "timesfm": Subject(timesfm.FAMILY, TimesFMConfig, timesfm_module.init_params, 512),
    "timer": Subject(timer.FAMILY, TimerConfig, timer_module.init_params, 672),
    "patchfm": Subject(patchfm.FAMILY, PatchFMConfig, patchfm_module.init_params, 512),
    "patchfm_nine": Subject(patchfm.FAMILY, PatchFMConfig, patchfm_module.init_params, 512, True),
    "toto": Subject(toto.FAMILY, TotoConfig, toto_module.init_params, 512),
}
