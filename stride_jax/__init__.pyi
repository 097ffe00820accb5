from . import (
    checkpoints as checkpoints,
)
from . import (
    cli as cli,
)
from . import (
    data as data,
)
from . import (
    decoding as decoding,
)
from . import (
    evaluation as evaluation,
)
from . import (
    forecasting as forecasting,
)
from . import (
    models as models,
)
from . import (
    remote as remote,
)
from . import (
    testing as testing,
)
from . import (
    training as training,
)
from .checkpoints.build import load_pair as load_pair
from .checkpoints.covariances import load_covariance as load_covariance
from .checkpoints.pair import Pair as Pair
from .checkpoints.store import (
    load_model as load_model,
)
from .checkpoints.store import (
    save_model as save_model,
)
from .decoding.base import Rule as Rule
from .decoding.draft_length import Fallback as Fallback
from .decoding.draft_length import Fixed as Fixed
from .decoding.draft_length import Gain as Gain
from .decoding.draft_length import Threshold as Threshold
from .decoding.drafts import multi_patch_draft as multi_patch_draft
from .decoding.linear_draft import linear_draft as linear_draft
from .decoding.naive_drafts import (
    last_value_draft as last_value_draft,
)
from .decoding.naive_drafts import (
    nearest_draft as nearest_draft,
)
from .decoding.naive_drafts import (
    seasonal_draft as seasonal_draft,
)
from .decoding.processes.cached import cached_process as cached_process
from .decoding.processes.window import window_process as window_process
from .decoding.rules.approximate import (
    Mean as Mean,
)
from .decoding.rules.approximate import (
    Resample as Resample,
)
from .decoding.rules.approximate import (
    SharedNoise as SharedNoise,
)
from .decoding.rules.exact import Block as Block
from .decoding.rules.exact import Maximal as Maximal
from .decoding.rules.exact import Residual as Residual
from .decoding.scale import PatchCovariance as PatchCovariance
from .decoding.speculative import decode as decode
from .decoding.types import DecodeConfig as DecodeConfig
from .decoding.types import DecodeInfo as DecodeInfo
from .errors import InputError as InputError
from .evaluation.calibration import calibrate as calibrate
from .forecasting.decoder import Decoder as Decoder
from .forecasting.decoder import build_decoder as build_decoder
from .forecasting.forecast import forecast as forecast
from .forecasting.frames import backtest as backtest
from .forecasting.frames import forecast_df as forecast_df
from .forecasting.results import Forecast as Forecast
from .forecasting.saved_decoder import load_decoder as load_decoder
