"""`--num_draft auto` of experiments: each rule has its fastest K, and none is run that loses."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.trained import DATA, HORIZON, loaded, setup

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.rules import Block, Mean
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation import experiments
from stride_jax.evaluation.config import EvaluateConfig, QuickConfig
from stride_jax.evaluation.fastest import lengths_of, with_fastest
from stride_jax.evaluation.subject import build, pair_decoders
from stride_jax.forecasting.auto import forecast_work
from stride_jax.forecasting.choice import Costs

RULES = (Mean(), Block())


@pytest.fixture(scope="module")
def subject():
    """Series and models without any compilation."""
    return build(dataclasses.replace(setup(), sigma=0.5), loaded(), [1])


def costs_of(lines):
    """Measured costs for any work, by its rule: `mean` gains with K 4, `block` with none."""

    class Known(dict):
        def get(self, key):
            lines.append(key)
            gain = {2: 0.9, 4: 0.5} if "Mean" in key else {2: 0.99, 4: 1.2}
            return Costs(1.0, gain, measured=True)

    return Known()


def test_rules_have_their_fastest_length_or_are_left_out(subject):
    """`auto` would time one K for all rules, or a rule that loses to the target alone."""
    sizes, said, asked = DecodeConfig(HORIZON, 2, num_paths=1), [], []
    decoders = pair_decoders(subject, RULES, sizes)
    chosen = with_fastest(subject, decoders, 3, costs_of(asked), said.append)
    rules = [(type(d.rule), d.config.num_draft) for d in chosen if d.rule is not None]
    assert rules == [(Mean, 4)]
    plain = [d for d in decoders if d.rule is None]
    assert [d for d in chosen if d.rule is None] == plain  # baselines stay as they are
    assert len(said) == 2
    assert "num_draft 4 is 2.00 times as fast" in said[0]
    assert "decoded by the target alone" in said[1]
    assert all(f" | {4} | " in key for key in asked)  # three lanes, rounded up to a power of two


def test_drafts_are_checked_for_every_length_that_may_be_chosen():
    """A draft that cannot propose K patches would be found out after minutes of work."""
    assert lengths_of(5, (96,), 24) == [5]
    assert lengths_of("auto", (48, 240), 24) == [2, 4, 8]
    assert lengths_of("auto", (72,), 24) == [2]


def test_an_experiment_takes_the_lengths_of_its_costs(subject, monkeypatch):
    """The flag would be read and nothing would follow it."""
    monkeypatch.setattr(experiments, "read_costs", lambda path: costs_of([]))
    decoders = pair_decoders(subject, RULES, DecodeConfig(HORIZON, 2, num_paths=1))
    auto = QuickConfig(setup(), num_draft="auto")
    chosen = experiments._with_auto(auto, subject, decoders, 1, lambda line: None)
    assert [d.config.num_draft for d in chosen if d.rule is not None] == [4]
    given = QuickConfig(setup(), num_draft=2)
    assert experiments._with_auto(given, subject, decoders, 1, lambda line: None) == decoders


def test_a_length_is_a_number_or_auto():
    """A K of 0, or another word, would end in an error from deep inside."""
    EvaluateConfig(setup(), season=4, num_draft="auto")
    with pytest.raises(InputError, match="num_draft must be at least 1, got 0"):
        EvaluateConfig(setup(), season=4, num_draft=0)


@pytest.mark.parametrize("variables", ["separate", "joint"])
def test_the_work_of_an_experiment_is_that_of_a_forecast(variables: Any) -> None:
    """What `calibrate` measured would not be found, and an estimate decide."""
    context, asked = 36, []  # nine patches, which a forecast counts as eight

    class Known(dict):
        def get(self, key: str) -> Costs:
            asked.append(key)
            return Costs(1.0, {2: 0.5}, measured=True)

    data = dataclasses.replace(DATA, context_len=context, variables=variables)
    subject = build(
        dataclasses.replace(setup(), data=data, sigma=0.5), loaded(context_len=context), [1]
    )
    decoders = pair_decoders(subject, (Mean(),), DecodeConfig(HORIZON, 2, num_paths=1))
    (drafted,) = (one for one in decoders if one.rule is not None)
    batch = 6 if variables == "separate" else 3
    with_fastest(subject, [drafted], batch, Known(), lambda line: None)
    pair, history = Pair(drafted.target, drafted.draft), np.ones((3, context, 2))
    work = forecast_work(pair, history, HORIZON, num_samples=0, variables=variables)
    assert asked == [work.key]
