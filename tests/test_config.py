"""Configuration: the original's draft dimensions, the checks, JSON, the command line."""

import csv
import dataclasses
import errno
import functools
import inspect
import json
import re
import sys
import typing
from pathlib import Path

import jax
import pytest
from golden import GOLDEN

from stride_jax.cli import flags as cli
from stride_jax.config import from_dict, to_dict
from stride_jax.data import config as config_data
from stride_jax.data.config import DataConfig
from stride_jax.decoding import types as decoding_types
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation import config as config_evaluate
from stride_jax.evaluation.config import (
    AcceleratorConfig,
    EvaluateConfig,
    FidelityConfig,
    LatencyConfig,
    QuickConfig,
    Setup,
    SpeedConfig,
    SweepConfig,
    TuneConfig,
)
from stride_jax.models import config as config_model
from stride_jax.models import init_params
from stride_jax.models import linear as config_linear
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.linear import LinearConfig
from stride_jax.training import config as config_training
from stride_jax.training.config import (
    DistillConfig,
    OptimConfig,
    RidgeConfig,
    RunConfig,
    TrainConfig,
)

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "train"
MODULES = [
    config_model,
    config_linear,
    config_data,
    config_training,
    config_evaluate,
    decoding_types,
]
CLASSES = [
    cls
    for module in MODULES
    for _, cls in inspect.getmembers(module, dataclasses.is_dataclass)
    if cls.__module__ == module.__name__
]
SETUP = Setup(horizons=(24, 96), sigma=0.4, drafts=("nearest",))
SAMPLES = [
    TimerXLConfig(4, 16, 2, 8, 3, "gelu", "gaussian", None, True, 5, 0.25, "bfloat16"),
    DataConfig("a.csv", ("x", "y"), "interpolate", "ratio", "separate", 48),
    OptimConfig(3e-3, "type1", 4, 16, 2, 9, 100, 1.5, 8),
    RunConfig("out", True, 1, 2, 3, True, 4),
    TrainConfig(DataConfig(context_len=48), TimerXLConfig(patch_len=24), 0.5, "somewhere"),
    DistillConfig(draft_context_len=336, objective="kl_mse", head="gaussian", sigma=0.3),
    RidgeConfig("mixture", 8, "mean", 100, (0.5, 2.0)),
    LinearConfig(24, 504, "mean", num_maps=4),
    DecodeConfig(96, 2, num_paths=4),
    SETUP,
    QuickConfig(SETUP, ("mean:tolerance=0.3",), 2, 5, "x"),
    EvaluateConfig(SETUP, ("maximal", "resample:bias=1.5"), num_draft=2, num_paths=0),
    TuneConfig(SETUP, ("block",), "sample", 0.01, None, (1, 4)),
    LatencyConfig(layers=(2,), processes=("window",)),
    SweepConfig(SETUP, ("block",), (1, 4), sigmas=(0.3,), biases=(2.0,), tolerances=(0.2,)),
    SpeedConfig(SETUP, ("block",), batches=(2, 3), repeats=4),
    FidelityConfig(SETUP, ("block:",), 2, 30, 10, 4),
    AcceleratorConfig(SETUP, ("block",), 2, layers=(2,), kinds=("linear",), minutes=1.0),
]


@functools.cache
def layer_counts(width: int, heads: int, hidden: int) -> tuple[int, int]:
    """Parameters outside the blocks, and in one block, of a mean head with patch length 24."""
    model = TimerXLConfig(24, width, heads, hidden, 1)
    shapes = jax.eval_shape(lambda key: init_params(key, model), jax.random.key(0))
    block = sum(leaf.size for leaf in jax.tree.leaves(shapes["block_0"]))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes)) - block, block


def scaling_rows() -> list[dict[str, str]]:
    """The original's table of draft dimensions."""
    with (GOLDEN / "draft_scaling.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_scaled_reproduces_the_original_row_by_row():
    """A draft would have another size than the one the paper's factor means."""
    rows = scaling_rows()
    assert len(rows) == 21 * 9
    misfits = []
    for row in rows:
        names = ("d_model", "n_heads", "d_ff", "e_layers")
        model = TimerXLConfig(24, *(int(row[name]) for name in names))
        draft = model.scaled(float(row["scale"]))
        found = (draft.d_model, draft.num_heads, draft.d_ff, draft.num_layers)
        rest, block = layer_counts(*found[:3])
        found = (*found, rest + draft.num_layers * block)
        expected = tuple(int(row[f"draft_{name}"]) for name in (*names, "params"))
        if found != expected:
            misfits.append((row, found))
        fields = ("patch_len", "activation", "head", "instance_norm", "dropout", "dtype")
        assert all(getattr(draft, name) == getattr(model, name) for name in fields)
    assert misfits == []


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_every_block_counts_the_same(layers):
    """The parameter counts above would miss parameters that only deeper models have."""
    model = TimerXLConfig(24, 32, 2, 64, layers)
    shapes = jax.eval_shape(lambda key: init_params(key, model), jax.random.key(0))
    rest, block = layer_counts(32, 2, 64)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == rest + layers * block


def test_trained_model_applies_the_factor():
    """A pretrained draft would have the size of its target."""
    train = TrainConfig(factor=0.25)
    assert train.trained_model == train.model.scaled(0.25)
    assert TrainConfig().trained_model == TrainConfig().model


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01, float("nan")])
def test_a_draft_is_not_larger_than_its_target(factor):
    """A wrong factor would build a model of absurd size."""
    with pytest.raises(InputError, match="factor"):
        TimerXLConfig().scaled(factor)


def test_every_config_has_a_sample():
    """A new config would not be covered by the round trip below."""
    assert {type(sample) for sample in SAMPLES} == set(CLASSES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_json_round_trip(sample):
    """A checkpoint would be read with another config than it was written with."""
    text = json.dumps(to_dict(sample))
    found = from_dict(type(sample), json.loads(text))
    assert found == sample
    assert type(found) is type(sample)
    assert hash(found) == hash(sample)  # tuples, not lists: configs are static in jit


@pytest.mark.parametrize("cls", CLASSES)
def test_configs_are_frozen(cls):
    """A config could change after jit has compiled for it."""
    sample = next(s for s in SAMPLES if type(s) is cls)
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(sample, name, getattr(sample, name))


@pytest.mark.parametrize(
    ("cls", "values", "nearest"),
    [
        (TimerXLConfig, {"d_modle": 3}, "d_model"),
        (TrainConfig, {"optim": {"learnig_rate": 1.0}}, "learning_rate"),
        (EvaluateConfig, {"setup": {"data": {"contextlen": 3}}}, "context_len"),
        (RunConfig, {"sede": 3}, "seed"),
    ],
)
def test_unknown_fields_suggest_the_nearest(cls, values, nearest):
    """A typing error would be ignored, or answered without help."""
    with pytest.raises(InputError, match=f"Did you mean '{nearest}'"):
        from_dict(cls, values)


def test_an_unknown_field_without_a_near_one_lists_all():
    """The user would have to look the fields up."""
    with pytest.raises(InputError, match="qqqq") as caught:
        from_dict(RunConfig, {"qqqq": 1})
    assert all(f.name in str(caught.value) for f in dataclasses.fields(RunConfig))


@pytest.mark.parametrize(
    ("cls", "values", "name"),
    [
        (TimerXLConfig, {"d_model": "64"}, "d_model"),
        (TimerXLConfig, {"d_model": 64.0}, "d_model"),
        (TimerXLConfig, {"d_model": True}, "d_model"),
        (TimerXLConfig, {"d_model": None}, "d_model"),
        (TimerXLConfig, {"covariate": 1}, "covariate"),
        (TimerXLConfig, {"activation": "tanh"}, "activation"),
        (TimerXLConfig, {"instance_norm": "batch"}, "instance_norm"),
        (TimerXLConfig, {"variable_stride": 1.5}, "variable_stride"),
        (TimerXLConfig, {"dropout": "0.1"}, "dropout"),
        (TimerXLConfig, {"dropout": True}, "dropout"),
        (DataConfig, {"source": 3}, "source"),
        (DataConfig, {"columns": [1]}, "columns"),
        (DataConfig, {"columns": "OT"}, "columns"),
        (Setup, {"horizons": 96}, "horizons"),
        (Setup, {"horizons": None}, "horizons"),
        (Setup, {"horizons": ["96"]}, "horizons"),
        (Setup, {"sigma": "0.5"}, "sigma"),
        (TrainConfig, {"data": 3}, "data"),
        (TrainConfig, {"data": None}, "data"),
        (TrainConfig, {"model": ["d_model"]}, "model"),
        (TrainConfig, {"optim": {"epochs": "3"}}, "epochs"),
    ],
)
def test_wrong_types_are_named(cls, values, name):
    """A wrong value in a file would surface as a traceback, or as a column for each letter."""
    with pytest.raises(InputError, match=name):
        from_dict(cls, values)


def test_a_missing_field_is_an_input_error():
    """A file without a field that has no default would end in a traceback."""
    with pytest.raises(InputError, match="horizon"):
        from_dict(DecodeConfig, {"num_draft": 3})


def test_an_int_serves_as_a_float():
    """JSON writes 1.0 as 1 in other programs."""
    assert from_dict(OptimConfig, {"learning_rate": 1}).learning_rate == 1.0


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        *[
            (TimerXLConfig, {name: value}, name)
            for name in ("patch_len", "d_model", "num_heads", "d_ff", "num_layers")
            for value in (0, -3)
        ],
        (TimerXLConfig, {"d_model": 20, "num_heads": 2}, "d_model 20 over num_heads 2"),
        (TimerXLConfig, {"d_model": 6, "num_heads": 1}, "multiple of 4"),
        (TimerXLConfig, {"dropout": 1.0}, "dropout"),
        (TimerXLConfig, {"dropout": -0.1}, "dropout"),
        (TimerXLConfig, {"dropout": float("nan")}, "dropout"),
        (TimerXLConfig, {"variable_stride": -1}, "variable_stride"),
        (DataConfig, {"context_len": 0}, "context_len"),
        (OptimConfig, {"learning_rate": 0.0}, "learning_rate"),
        (OptimConfig, {"learning_rate": -1e-3}, "learning_rate"),
        (OptimConfig, {"batch_size": 0}, "batch_size"),
        (OptimConfig, {"epochs": 0}, "epochs"),
        (OptimConfig, {"patience": 0}, "patience"),
        (RunConfig, {"log_every": 0}, "log_every"),
        (RunConfig, {"save_every": 0}, "save_every"),
        (TrainConfig, {"data": DataConfig(context_len=100)}, "context_len 100"),
        (TrainConfig, {"data": DataConfig(context_len=48)}, "patch_len 96"),
        (DistillConfig, {"on_policy": 1.1}, "on_policy"),
        (DistillConfig, {"on_policy": -0.1}, "on_policy"),
        (DistillConfig, {"num_draft": 0}, "num_draft"),
        (DistillConfig, {"sigma": 0.0}, "sigma"),
        (DistillConfig, {"draft_context_len": 673}, "draft_context_len 673"),
        (DecodeConfig, {"horizon": 0}, "horizon"),
        (DecodeConfig, {"horizon": 1, "num_draft": -1}, "num_draft"),
        *[
            (EvaluateConfig, {name: 0}, name)
            for name in ("num_draft", "season", "timing_batch", "repeats")
        ],
        *[(Setup, {name: 0}, name) for name in ("stride", "batch_size", "calibration_stride")],
        (EvaluateConfig, {"season": 505}, "season 505"),
        (EvaluateConfig, {"num_paths": 1}, "num_paths"),
        (Setup, {"horizons": ()}, "horizons"),
        (Setup, {"sigma": 0.0}, "sigma"),
        (Setup, {"sigma": float("nan")}, "sigma"),
        (SweepConfig, {"biases": (0.5,)}, "biases"),
        (TuneConfig, {"tolerances": ()}, "tolerances"),
    ],
)
def test_bad_values_are_refused(cls, values, message):
    """A nonsensical run would start and fail later, or never."""
    with pytest.raises(InputError, match=message):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (OptimConfig, {"batch_size": 0}, "batch_size must be at least 1, got 0."),
        (OptimConfig, {"t_max": 0}, "t_max must be at least 1, got 0."),
        (OptimConfig, {"grad_clip": 0.0}, "grad_clip must be > 0, got 0.0."),
        (OptimConfig, {"learning_rate": float("inf")}, "learning_rate must be > 0, got inf."),
        (DistillConfig, {"augment": 2.0}, "augment must be in [0, 1], got 2.0."),
        (DistillConfig, {"dropout": 1.0}, "dropout must be in [0, 1), got 1.0."),
        (DistillConfig, {"mse_weight": -1.0}, "mse_weight must be at least 0, got -1.0."),
        (Setup, {"horizons": ()}, "horizons must not be empty."),
    ],
)
def test_a_refusal_names_field_bounds_and_value(cls, values, message):
    """A user would not know what to change, or to which side."""
    with pytest.raises(InputError) as caught:
        cls(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
@pytest.mark.parametrize("cls", [c for c in CLASSES if hasattr(c, "seed")])
def test_seeds_that_jax_would_change_are_refused(cls, seed):
    """A run would have the draws of another seed, or end in an OverflowError."""
    with pytest.raises(InputError) as caught:
        cls(seed=seed)
    assert str(caught.value) == f"seed must be in [0, {2**32 - 1}], got {seed}."
    assert [cls(seed=edge).seed for edge in (0, 2**32 - 1)] == [0, 2**32 - 1]


def test_the_edges_of_good_values_are_accepted():
    """A check would refuse a sensible run."""
    TimerXLConfig(1, 4, 1, 1, 1, dropout=0.0, variable_stride=0)
    DistillConfig(on_policy=0.0, num_draft=1, draft_context_len=672)
    DistillConfig(on_policy=1.0)
    DecodeConfig(1, num_draft=0)
    TrainConfig(data=DataConfig(context_len=96))
    EvaluateConfig(num_paths=0)
    EvaluateConfig(num_paths=2)
    Setup(sigma=None, stride=1)


def parse(*argv: str, default=None):
    """The config of a command line."""
    return cli.parse(argv, CONFIGS, TrainConfig() if default is None else default, prog="prog")


def leaves(cls, prefix: str = "") -> dict[str, tuple[type, str]]:
    """Dotted names of all fields of nested dataclasses -> (the class that owns it, its name)."""
    found, hints = {}, typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= leaves(
                hints[field.name], "" if field.name == "setup" else f"{prefix}{field.name}."
            )
        else:
            found[prefix + field.name] = (cls, field.name)
    return found


def explanations(cls) -> dict[str, str]:
    """Field -> its text in the `Attributes:` section."""
    section = inspect.cleandoc(cls.__doc__).split("Attributes:")[1]
    entries = re.split(r"\n {4}(?=\w+: )", section)
    pairs = (entry.strip().partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(text.split()) for name, _, text in pairs}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_explained(cls):
    """A field would be on the command line without a word of help."""
    assert set(explanations(cls)) == {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize("cls", [TrainConfig, DistillConfig, EvaluateConfig])
def test_help_lists_every_field(cls, capsys):
    """A field could not be found, or its help would be cut off."""
    with pytest.raises(SystemExit) as caught:
        parse("--help", default=cls())
    assert caught.value.code == 0
    shown = " ".join(re.sub(r"[│╭╮╰╯─|]", " ", capsys.readouterr().out).split())
    for flag, (owner, name) in leaves(cls).items():
        assert f"--{flag} " in shown
        rest = shown.split(f"--{flag} ", 1)[1].split(" --")[0]
        assert explanations(owner)[name] in rest, flag
    for path in CONFIGS.glob("*.py"):
        assert path.stem in shown


def test_config_by_name_and_by_path(tmp_path):
    """`--config` would be ignored in one of its spellings."""
    expected = cli.load_config("beijing", CONFIGS, TrainConfig)
    assert expected != TrainConfig()
    path = CONFIGS / "beijing.py"
    for argv in (
        ["--config", "beijing"],
        ["--config=beijing"],
        [f"--config={path}"],
        ["--config", str(path)],
    ):
        assert parse(*argv) == expected
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from stride_jax.training.config import TrainConfig\n"
        "def get_config():\n    return TrainConfig(factor=0.5)\n"
    )
    assert parse("--config", str(mine)) == TrainConfig(factor=0.5)
    assert parse() == TrainConfig()


def test_fields_are_overridden_by_their_dotted_names():
    """A flag would change another field, or nothing."""
    model = dataclasses.replace(TrainConfig().model, d_model=128)
    assert parse("--model.d_model", "128") == TrainConfig(model=model)
    assert parse("--model.d_model=128") == TrainConfig(model=model)
    base = cli.load_config("beijing", CONFIGS, TrainConfig)
    after = dataclasses.replace(base, model=dataclasses.replace(base.model, d_model=256))
    assert parse("--config", "beijing", "--model.d_model", "256") == after
    assert parse("--model.d_model=256", "--config=beijing") == after
    found = parse(
        *("--data.columns", "a", "b", "--run.resume", "True", "--optim.grad_clip", "1.5"),
        *("--model.instance_norm", "None", "--model.variable_stride", "0", "--run.seed=3"),
    )
    assert found.data.columns == ("a", "b")
    assert found.run.resume is True
    assert found.optim.grad_clip == 1.5
    assert found.model.instance_norm is None
    assert found.model.variable_stride == 0
    assert found.run.seed == 3
    default = EvaluateConfig(Setup(sigma=1.0))
    setup = parse("--horizons", "24", "96", "--sigma", "None", default=default).setup
    assert setup.horizons == (24, 96)
    assert setup.sigma is None


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--model.d_modle", "3"], "--model.d_model"),
        (["--optim.learning_rte=1"], "--optim.learning_rate"),
        (["--model.d_model", "abc"], "--model.d_model"),
        (["--optim.learning_rate", "fast"], "--optim.learning_rate"),
        (["--model.activation", "tanh"], "relu"),
        (["--model.d_model", "30"], "d_model 30"),
        (["--data.context_len", "100"], "context_len 100"),
        (["--model.d_model"], "--model.d_model"),
        (["extra"], "extra"),
    ],
)
def test_bad_flags_end_the_program_with_status_2(argv, shown, monkeypatch, capsys):
    """A typing error would be ignored, or its answer would not help."""
    monkeypatch.setattr(sys, "argv", ["prog", *argv])
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda rest: parse(*rest))
    assert caught.value.code == 2
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--config"], ["--config="]])
def test_config_needs_a_name(argv):
    """A forgotten name would run the default."""
    with pytest.raises(InputError, match="--config needs"):
        parse(*argv)


def test_unknown_configs_suggest_the_nearest(tmp_path):
    """A typing error would be answered by a list of everything, or a traceback."""
    with pytest.raises(InputError, match="Did you mean 'beijing'"):
        cli.load_config("beijng", CONFIGS, TrainConfig)
    with pytest.raises(InputError, match=r"absent\.py"):
        cli.load_config(str(tmp_path / "absent.py"), CONFIGS, TrainConfig)


def test_a_config_of_another_program_is_refused():
    """`train.py` would go on with the fields of `distill.py`."""
    with pytest.raises(InputError, match=r"gives a DistillConfig.*needs a TrainConfig"):
        cli.load_config("beijing", CONFIGS.with_name("distill"), TrainConfig)


def test_a_file_without_get_config_is_refused(tmp_path):
    """Any Python file would end in an AttributeError."""
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="get_config"):
        cli.load_config("empty", tmp_path, TrainConfig)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.parent.rglob("*.py")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_shipped_config_loads(path):
    """A command in the README would fail before it starts."""
    found = cli.load_config(path.stem, path.parent, object)
    assert type(found) in set(CLASSES)
    assert from_dict(type(found), json.loads(json.dumps(to_dict(found)))) == found


SEEDS = [
    (TrainConfig(), "--run.seed"),
    (DistillConfig(), "--run.seed"),
    (EvaluateConfig(), "--seed"),
    (LatencyConfig(), "--seed"),
    (QuickConfig(), "--seed"),
    (TuneConfig(), "--seed"),
    (SweepConfig(), "--seed"),
    (SpeedConfig(), "--seed"),
    (FidelityConfig(), "--seed"),
]


@pytest.mark.parametrize(("default", "flag"), SEEDS, ids=lambda x: type(x).__name__)
def test_the_seed_is_said(default, flag, capsys):
    """A forecast could not be made again from what the screen showed."""
    cli.parse([flag, "77"], CONFIGS, default, prog="program")
    assert capsys.readouterr().err == "seed 77\n"


def test_input_errors_become_one_line(monkeypatch, capsys):
    """Users would read tracebacks, and scripts would not see the failure."""
    monkeypatch.setattr(sys, "argv", ["prog", "--a", "b"])
    seen = []

    def main(argv):
        seen.append(list(argv))
        raise InputError("no file 'x'; give another path.")

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 2
    assert seen == [["--a", "b"]]
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: no file 'x'; give another path.\n")


def test_long_input_errors_become_one_line_too(monkeypatch, capsys):
    """A library's many-line message inside ours would break the promise of one line."""
    monkeypatch.setattr(sys, "argv", ["prog"])

    def main(argv):
        raise InputError("it is damaged: first\n  second\n")

    with pytest.raises(SystemExit):
        cli.run(main)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "second" in err


def test_other_endings_of_a_program(monkeypatch, capsys):
    """A bug would be hidden as a user's mistake, or Ctrl-C would print a traceback."""
    monkeypatch.setattr(sys, "argv", ["prog"])

    def stop(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli.run(stop)
    assert caught.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1

    def bug(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(bug)
    assert cli.run(lambda argv: None) is None


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    """Who has no room left would read a traceback; another failure of a file is a bug."""
    monkeypatch.setattr(sys, "argv", ["prog"])

    def full(argv):
        raise OSError(errno.ENOSPC, "No space left on device", "log.jsonl")

    with pytest.raises(SystemExit) as caught:
        cli.run(full)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "log.jsonl" in err

    def bug(argv):
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        cli.run(bug)


def test_resume_is_short_for_its_dotted_name():
    """The flag that everyone tries first must work."""
    config = cli.parse(["--resume"], CONFIGS, TrainConfig(), prog="train.py")
    assert config.run.resume is True
