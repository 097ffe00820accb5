"""Rules as text, as the command line takes them."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stride_jax.decoding.base import Rule
from stride_jax.decoding.rules import (
    RULES,
    AsReleased,
    Mean,
    Resample,
    SharedNoise,
    parse_rule,
    rule_name,
)
from stride_jax.errors import InputError


@pytest.mark.parametrize("name", RULES)
def test_a_name_alone_is_the_rule_with_its_defaults(name: str) -> None:
    """A rule could not be named, or would have other settings than in Python."""
    assert parse_rule(name) == RULES[name]()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean:tolerance=0.2", Mean(tolerance=0.2)),
        ("mean:tolerance=0", Mean(tolerance=0.0)),
        ("mean:temperature=1.5", Mean(temperature=1.5)),
        ("mean:emit_proposal=true", Mean(emit_proposal=True)),
        ("mean:emit_proposal=False", Mean(emit_proposal=False)),
        ("shared_noise:tolerance=1e-3", SharedNoise(0.001)),
        ("resample:bias=2", Resample(bias=2.0)),
        ("resample:bias=2,mse_tolerance=.5", Resample(2.0, 0.5)),
        ("resample:mse_tolerance=.5,bias=2", Resample(2.0, 0.5)),
        ("resample: bias = 2 , mse_tolerance = .5", Resample(2.0, 0.5)),
        (
            "as_released:adaptive_sigma=2,bias=1.5,mse_tolerance=0.1",
            AsReleased(1.5, 0.1, adaptive_sigma=2.0),
        ),
    ],
)
def test_settings_are_read(text: str, expected: Rule) -> None:
    """A setting would be ignored, or another one be set."""
    found = parse_rule(text)
    assert found == expected
    for field in dataclasses.fields(found):
        assert type(getattr(found, field.name)) is type(getattr(expected, field.name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blok", "no rule 'blok'.*'block'"),
        ("", "no rule ''"),
        ("Block", "no rule 'Block'.*'block'"),
        (":tolerance=1", "no rule ''"),
        ("tolerance=1", "no rule 'tolerance=1'"),
        ("mean:tolerence=0.2", "'mean' has no setting 'tolerence'.*'tolerance'"),
        ("shared_noise:bias=2", "'shared_noise' has no setting 'bias'"),
        ("resample:bias=2,tolerance=1", "'resample' has no setting 'tolerance'"),
        ("block:tolerance=1", "'block' has no setting 'tolerance'.*none"),
        ("resample:bias=2,", "'resample' has no setting ''"),
        ("mean:tolerance", "'mean:tolerance': '' is not a number"),
        ("mean:tolerance=", "'' is not a number"),
        ("mean:tolerance=much", "'much' is not a number"),
        ("mean:tolerance=true", "'true' is not a number"),
        ("mean:temperature=none", "'none' is not a number"),
        ("mean:tolerance=0.1=0.2", "'0.1=0.2' is not a number"),
        ("mean:emit_proposal=1", "'1' is not true or false"),
        ("mean:emit_proposal=yes", "'yes' is not true or false"),
        ("mean:tolerance=-0.1", "tolerance .* -0.1"),
        ("mean:tolerance=nan", "tolerance .* nan"),
        ("mean:tolerance=inf", "tolerance .* inf"),
        ("mean:temperature=0", "temperature .* 0"),
        ("resample:bias=0.5", "bias .* 0.5"),
        ("as_released:adaptive_sigma=-1", "adaptive_sigma .* -1"),
        ("resample:bias=2,bias=3", "'resample:bias=2,bias=3' gives 'bias' twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    """A typing mistake would be ignored, or decode for minutes with another rule than meant."""
    with pytest.raises(InputError, match=said):
        parse_rule(text)


POSITIVE = st.floats(1e-6, 1e6)
SETTINGS = {
    "bias": st.floats(1, 1e6),
    "mse_tolerance": st.floats(0, 1e6),
    "tolerance": st.floats(0, 1e6),
    "adaptive_sigma": st.none() | POSITIVE,
    "temperature": st.none() | POSITIVE,
    "emit_proposal": st.booleans(),
}


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule with any settings that it allows."""
    kind = draw(st.sampled_from(list(RULES.values())))
    return kind(**{field.name: draw(SETTINGS[field.name]) for field in dataclasses.fields(kind)})


def text_of(rule: Rule) -> str:
    """The rule as it is typed; a setting that is None cannot be typed, and is the default."""
    values = dataclasses.asdict(rule).items()
    settings = ",".join(f"{name}={value!r}" for name, value in values if value is not None)
    return rule_name(rule) + (f":{settings}" if settings else "")


@given(rule=rules())
def test_every_rule_can_be_typed(rule: Rule) -> None:
    """Some setting of some rule could only be reached from Python, or would lose digits."""
    found = parse_rule(text_of(rule))
    assert found == rule
    assert all(not isinstance(x, float) or math.isfinite(x) for x in vars(found).values())
