"""One pair under every setting of its rules: errors, times, and what theory expects of the times.

sigma, bias and tolerances are traced, so that a sweep compiles once for each rule and K.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import padded_batches
from stride_jax.decoding.base import DecodeConfig, Outcome, Round, Rule, num_patches
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.rules import find_rule
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark, theory
from stride_jax.evaluation.config import EvaluateConfig, SweepConfig
from stride_jax.evaluation.methods import (
    alone,
    check_draft,
    draft_alone,
    make_pairs,
    make_rule,
    process_kind,
    speculative,
)
from stride_jax.evaluation.scoring import Decode, Method, Own, Scores, Tally, gather


class Setting(NamedTuple):
    """One row to be; what a rule does not depend on is None.

    Attributes:
        rule: its name.
        num_draft: K.
        sigma: std of the target's law; of the gap's unit for rules of means.
        bias: see `coupling.Resample`.
        mse_tolerance: see `coupling.Resample`.
        tolerance: see `coupling.Mean`.
    """

    rule: str
    num_draft: int
    sigma: float
    bias: float | None = None
    mse_tolerance: float | None = None
    tolerance: float | None = None

    @property
    def sampled(self) -> bool:
        """Whether the rule draws sample paths."""
        return find_rule(self.rule).proposes != "mean"

    @property
    def decided_by(self) -> Rule:
        """The rule with these settings."""
        return make_rule(self.rule, self)


def settings(config: SweepConfig, sigma: float) -> Iterator[list[Setting]]:
    """The settings of each rule and K; `sigma` where the config has none."""
    for rule, num_draft in itertools.product(config.rules, config.num_drafts):
        sigmas = config.sigmas or (sigma,)
        ratios = rule in ("resample", "as_released")
        gaps = rule in ("mean", "shared_noise")
        grid = itertools.product(
            sigmas,
            config.biases if ratios else (None,),
            config.mse_tolerances if ratios else (None,),
            config.tolerances if gaps else (None,),
        )
        yield [Setting(rule, num_draft, *values) for values in grid]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AcceptNone(Rule):
    """A rule with its work done and nothing accepted, for the cost of a round.

    Attributes:
        rule: whose work is done.
    """

    rule: Any

    @property
    def proposes(self) -> Any:  # type: ignore[override]
        """As the rule."""
        return self.rule.proposes

    @property
    def scales(self) -> Any:  # type: ignore[override]
        """As the rule."""
        return self.rule.scales

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        return self.rule.decide(key, current)._replace(num_accepted=jnp.zeros((), jnp.int32))


def sweep(
    config: SweepConfig,
    data: ForecastData,
    target: Checkpoint,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Decodes the test windows under every setting.

    Every decode of a rule and K takes turns on the same batches of windows as the autoregressive
    decode it is compared with; seconds are the mean of a batch.

    Args:
        config: what to run.
        data: see `data.splits.prepare`.
        target: the trained target; the draft is found by its name.
        progress: called with a line on what is being done.

    Returns:
        A dictionary with rows (a list), hardware, versions and config.

    Raises:
        InputError: an unknown rule, a K that the draft cannot propose, a horizon of one patch.
    """
    for rule in config.rules:
        benchmark.check_paths(config.base, rule)
    machine = benchmark.environment()
    bench = _Bench(config.base, data, target)
    for num_draft in config.num_drafts:
        check_draft(bench.pair, config.base.data.context_len, bench.num_vars, num_draft)
    split = {bench.horizon: bench.windows}
    missing = benchmark.missing_truths(config.base, bench.values, split, progress)
    rows: list[dict[str, Any]] = []
    for group in settings(config, bench.sigma):
        progress(f"{group[0].rule} K = {group[0].num_draft}: {len(group)} settings")
        for row in bench.rows(group):
            if row["method"] == "speculative" or _new(row, rows):
                rows.append(row)
        jax.clear_caches()  # each rule and K is a program of its own
    return {"table": "sweep", "rows": rows, **missing, **machine, "config": to_dict(config)}


def _new(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether a row of one model alone is not there yet."""
    names = ("method", "kind", "sigma")
    return not any(all(row[n] == other[n] for n in names) for other in rows)


class Clocked:
    """A decode, and the seconds of its batches."""

    def __init__(self, decode: Decode) -> None:
        self.decode = decode
        self._taken: list[float] = []

    def __call__(self, key: jax.Array, context: jax.Array, index: jax.Array, paths: int) -> Any:
        """Decodes a batch, awaited."""
        start = time.perf_counter()
        out = jax.block_until_ready(self.decode(key, context, index, paths, False))
        self._taken.append(time.perf_counter() - start)
        return out

    @property
    def seconds(self) -> float:
        """The mean batch; the first call, which compiles, does not count."""
        return float(np.mean(self._taken[1:]))


class Scored(Clocked):
    """A row to be: its batches are also counted."""

    def __init__(self, method: Method, paths: int) -> None:
        super().__init__(method.decode)
        self.method, self.tally = method, Tally(method, paths)


class _Bench:
    """One pair and its windows."""

    def __init__(self, base: EvaluateConfig, data: ForecastData, target: Checkpoint) -> None:
        self.base = dataclasses.replace(base, rules=(), other_drafts=())
        self.pair = make_pairs(self.base, target, len(data.names))[base.draft]
        self.kind = process_kind(base, target)
        self.num_vars = 1 if base.data.variables == "separate" else len(data.names)
        self.horizon, self.values = max(base.horizons), data.on_device
        self.count = num_patches(self.horizon, self.pair.target.patch_len)
        if self.count < 2:
            raise InputError(
                f"a sweep needs a horizon of two patches or more, got {self.horizon} steps."
            )
        self.windows = benchmark.test_windows(base, data, self.horizon)
        found = benchmark.sigma_of(base, data, self.pair.target)
        self.sigma = float(jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(found)))))
        self.key = jax.random.key(base.seed)

    def rows(self, group: list[Setting]) -> Iterator[dict[str, Any]]:
        """The rows of one rule and K: the models alone with each sigma, then its settings."""
        sampled, num_draft = group[0].sampled, group[0].num_draft
        sigmas = list(dict.fromkeys(s.sigma if sampled else 0.0 for s in group))
        own = {s: self._alone("autoregressive", sampled, s, num_draft) for s in sigmas}
        drafts = {s: self._alone("draft", sampled, s, num_draft) for s in sigmas}
        tried = [self._speculative(setting) for setting in group]
        last = sigmas[-1]
        patch_len = self.pair.target.patch_len
        one = Clocked(alone(self.pair.target, last, patch_len))
        draft = Clocked(draft_alone(self.pair, last, patch_len, num_draft, learned=False))
        forced = Clocked(self._decode(group[0], AcceptNone(group[0].decided_by)))
        self._play([*own.values(), *drafts.values(), *tried, one, draft, forced], sampled)
        clocks = own[last], one, drafts[last], draft, forced
        costs = Costs.of(self.count, num_draft, *(clock.seconds for clock in clocks))
        with_sigma = {}
        for s in sigmas:
            forecasts = own[s].tally.forecasts()
            distance = drafts[s].tally.scores(forecasts)["distance"]
            with_sigma[s] = Own(own[s].tally.scores(None), forecasts, distance), own[s].seconds
            for scored in (own[s], drafts[s]):
                yield self._row(scored, None, s, *with_sigma[s])
        for setting, scored in zip(group, tried, strict=True):
            row = self._row(
                scored,
                setting,
                setting.sigma,
                *with_sigma[setting.sigma if sampled else 0.0],
            )
            yield {**row, **costs.predictions(row, num_draft, self.base.batch_size)}

    def _alone(self, name: str, sampled: bool, sigma: float, num_draft: int) -> Scored:
        if name == "draft":
            decode = draft_alone(self.pair, sigma, self.horizon, num_draft, learned=False)
        else:
            decode = alone(self.pair.target, sigma, self.horizon)
        method = Method(name, sampled, self.kind, None, None, None, decode)
        return Scored(method, self._paths(sampled))

    def _paths(self, sampled: bool) -> int:
        return self.base.num_paths if sampled else 1

    def _decode(self, setting: Setting, rule: Rule) -> Decode:
        config = DecodeConfig(self.horizon, setting.num_draft)
        return speculative(self.pair, setting.sigma, config, rule, Fixed())

    def _speculative(self, setting: Setting) -> Scored:
        decode = self._decode(setting, setting.decided_by)
        names = "speculative", setting.sampled, self.kind, self.base.draft
        method = Method(*names, setting.rule, setting.num_draft, decode)
        return Scored(method, self._paths(setting.sampled))

    def _play(self, decoders: list[Clocked], sampled: bool) -> None:
        """Every decoder on every batch of windows, in turns."""
        paths = self._paths(sampled)
        batches = list(zip(*padded_batches(self.windows.count, self.base.batch_size), strict=True))
        for number, (index, weight) in enumerate([batches[0], *batches]):
            series = gather(self.values, index, self.windows)
            context, truth = series[:, : -self.horizon], series[:, -self.horizon :]
            for decoder in decoders:
                forecast, info = decoder(self.key, context, index, paths)
                if number > 0 and isinstance(decoder, Scored):  # the first one compiles
                    decoder.tally.add(forecast, info, truth, weight)

    def _row(
        self, found: Scored, setting: Setting | None, sigma: float, own: Own, seconds: float
    ) -> dict[str, Any]:
        method, scores = found.method, found.tally.scores(own.forecasts)
        error = "crps" if method.sampled else "mse"
        exact = setting is not None and find_rule(setting.rule).exact  # what is measured is chance
        chosen = dict.fromkeys(Setting._fields) if setting is None else setting._asdict()
        return {
            "method": method.name,
            "kind": "sampled" if method.sampled else "point",
            "process": self.kind,
            "draft": self.base.draft if method.name != "autoregressive" else None,
            "horizon": self.horizon,
            "windows": self.windows.count,
            "batch": self.base.batch_size,
            "num_paths": found.tally.paths,
            **chosen,
            "sigma": sigma,
            **scores,
            "relative_error": 0.0 if exact else scores[error] / own.scores[error] - 1,
            "distance_over_drafts": own.share(scores),
            "seconds": found.seconds,
            "speedup": seconds / found.seconds,
        }


class Costs(NamedTuple):
    """Seconds of a batch; those of a draft step and of a verification hold for all its settings.

    Attributes:
        patches: N.
        whole: the autoregressive decode.
        prepare: what target and draft take before their first passes.
        one: a pass of the target.
        draft: a pass of the draft.
        verify: the verification of a round and the rule.
    """

    patches: int
    whole: float
    prepare: float
    one: float
    draft: float
    verify: float

    @classmethod
    def of(
        cls,
        count: int,
        num_draft: int,
        whole: float,
        first: float,
        draft: float,
        draft_first: float,
        forced: float,
    ) -> Costs:
        """From decodes of N patches and of one, by target and draft, and of no proposal accepted.

        `whole` and `first` are the target's, `draft` and `draft_first` the draft's.
        """
        tiny = 1e-9  # a coarse clock may see no time pass
        one = max(tiny, (whole - first) / (count - 1))
        step = max(tiny, (draft - draft_first) / (count - 1))
        prepare = max(0.0, first - one) + max(0.0, draft_first - step)
        drafted = sum(min(num_draft, missing) for missing in range(1, count + 1))
        rounds = forced - prepare - drafted * step
        return cls(count, whole, prepare, one, step, max(tiny, rounds / count))

    def predictions(self, row: Scores, num_draft: int, batch: int) -> dict[str, Any]:
        """Speedups that theory expects from the acceptances of a row.

        `paper`: its formula, with a verification as dear as one pass. `independent`: with the
        measured costs of draft and verification, a finite horizon, and the slowest of a batch.
        `markov`: the same
        with acceptances that depend on the one before.
        """
        a = row["acceptance"]
        links = [row[f"accept_{x}"] for x in ("after_accept", "after_reject", "first")]
        known = [a if link is None else link for link in links]
        lanes = batch * int(row["num_paths"])

        def ratio(chances: list[float]) -> float:
            accept, reject, first = chances
            laws = theory.markov_missing(accept, reject, first, num_draft, self.patches)
            rounds = theory.longest_drafted(laws, 1, lanes)
            drafted = theory.longest_drafted(laws, num_draft, lanes)
            return self.whole / (self.prepare + rounds * self.verify + drafted * self.draft)

        return {
            "verify_seconds": self.verify,
            "pass_seconds": self.one,
            "predicted_paper": theory.speedup(a, num_draft, self.draft / self.one),
            "predicted_independent": ratio([a, a, a]),
            "predicted_markov": ratio(known),
        }
