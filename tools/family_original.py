"""Decodes the original PyTorch code of a family on request; `tools/family_speed.py` runs it.

It runs in the environment of the family's tool, such as `tools/golden_timesfm.py`. The first line
of its input is JSON with the family and the sizes of a model, which gets random weights; every
other line, `{"batch": B, "context": L, "horizon": H}`, is one decode, answered by one line,
`{"ms": ..., "peak_mb": ...}`: its time, and the memory of this process so far at its highest.
"""

import contextlib
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

OUTPUTS = 10

Decode = Callable[[torch.Tensor, int], Any]


def timesfm_decode(sizes: dict[str, int]) -> Decode:
    """The decode of TimesFM 2.5 with its cache, without the options of its wrapper."""
    from timesfm.timesfm_2p5 import timesfm_2p5_torch

    released = timesfm_2p5_torch.TimesFM_2p5_200M_torch_module
    full, width = released.config, sizes["d_model"]

    def block(old: Any, inputs: int, outputs: int) -> Any:
        return dataclasses.replace(old, input_dims=inputs, hidden_dims=width, output_dims=outputs)

    layer = dataclasses.replace(
        full.stacked_transformers.transformer,
        model_dims=width,
        hidden_dims=sizes["d_ff"],
        num_heads=sizes["num_heads"],
    )
    layers = dataclasses.replace(
        full.stacked_transformers, num_layers=sizes["num_layers"], transformer=layer
    )

    class Model(released):
        config = dataclasses.replace(
            full,
            tokenizer=block(full.tokenizer, 2 * full.input_patch_len, width),
            stacked_transformers=layers,
            output_projection_point=block(
                full.output_projection_point, width, full.output_patch_len * OUTPUTS
            ),
            output_projection_quantiles=block(
                full.output_projection_quantiles, width, full.output_quantile_len * OUTPUTS
            ),
        )

    model = Model().eval()
    for name, value in model.named_parameters():
        if name.endswith("ln.scale"):  # they start at 0
            torch.nn.init.ones_(value)
    return lambda series, horizon: model.decode(horizon, series, torch.zeros_like(series).bool())


def timer_decode(sizes: dict[str, int]) -> Decode:
    """The `generate` of Timer with its cache."""
    from sktime.libs.timer.configuration_timer import TimerConfig
    from sktime.libs.timer.modeling_timer import TimerForPrediction

    config = TimerConfig(
        input_token_len=sizes["patch_len"],
        output_token_lens=[sizes["patch_len"]],
        hidden_size=sizes["d_model"],
        intermediate_size=sizes["d_ff"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
    )
    model = TimerForPrediction(config).eval()

    def decode(series: torch.Tensor, horizon: int) -> Any:
        with torch.no_grad():
            return model.generate(series, max_new_tokens=horizon, revin=False)

    return decode


def patchfm_decode(sizes: dict[str, int]) -> Decode:
    """The decode of PatchFM with its cache and nine paths; d_ff follows from d_model."""
    from patchfm.configs.model_config import PatchFMConfig
    from patchfm.inference import forecaster, modules

    config = PatchFMConfig(
        max_seq_len=sizes["context_limit"],
        patch_len=sizes["patch_len"],
        d_model=sizes["d_model"],
        n_heads=sizes["num_heads"],
        n_layers_encoder=sizes["num_layers"],
        compile=False,
    )
    modules.PatchFM.from_pretrained = lambda name: modules.PatchFM(config)
    with contextlib.redirect_stdout(sys.stderr):  # what it prints is no answer
        model = forecaster.Forecaster(config)

    def decode(series: torch.Tensor, horizon: int) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return model(series, forecast_horizon=horizon)

    return decode


def toto_decode(sizes: dict[str, int]) -> Decode:
    """The mean path of Toto 1.0 with its cache, for series of one variable."""
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster
    from toto.model.backbone import TotoBackbone

    model = TotoBackbone(
        patch_size=sizes["patch_len"],
        stride=sizes["patch_len"],
        embed_dim=sizes["d_model"],
        num_layers=sizes["num_layers"],
        num_heads=sizes["num_heads"],
        mlp_hidden_dim=sizes["d_ff"],
        dropout=0.0,
        spacewise_every_n_layers=sizes["space_every"],
        spacewise_first=False,
        scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
        output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        output_distribution_kwargs={"k_components": sizes["num_components"]},
        use_memory_efficient_attention=False,
    )
    forecaster = TotoForecaster(model)

    def decode(series: torch.Tensor, horizon: int) -> Any:
        values = series[:, None]  # [B, L] -> [B, 1, L]
        zeros = torch.zeros(values.shape, dtype=torch.int)
        inputs = MaskedTimeseries(
            series=values,
            padding_mask=torch.ones_like(values, dtype=torch.bool),
            id_mask=zeros,
            timestamp_seconds=zeros,
            time_interval_seconds=torch.ones(len(series), 1, dtype=torch.int),
        )
        return forecaster.forecast(inputs, horizon)

    return decode


def fracast_decode(sizes: dict[str, int]) -> Decode:
    """Fracast-0 with the weights of its wheel, one series after the other, as it takes them."""
    from fracast import FracastModel

    del sizes  # those of the wheel
    model = FracastModel.from_pretrained(weights="fp32")

    def decode(series: torch.Tensor, horizon: int) -> Any:
        return [model.forecast(one.numpy(), horizon=horizon) for one in series]

    return decode


DECODES = {
    "fracast": fracast_decode,
    "timesfm": timesfm_decode,
    "timer": timer_decode,
    "patchfm": patchfm_decode,
    "patchfm_nine": patchfm_decode,
    "toto": toto_decode,
}


def main() -> None:
    """Answers one line of the input after the other."""
    model = json.loads(sys.stdin.readline())
    decode = DECODES[model["family"]](model["sizes"])
    for line in sys.stdin:
        cell = json.loads(line)
        series = torch.randn(cell["batch"], cell["context"])
        start = time.perf_counter()
        decode(series, cell["horizon"])
        took = 1000 * (time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB -> MiB
        print(json.dumps({"ms": took, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
