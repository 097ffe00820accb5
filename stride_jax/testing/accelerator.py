"""The measurement of an accelerator: decoders, training, parity and exactness, in one run.

`python evaluate.py accelerator` (see `configs/evaluate/accelerator.py`). The jobs are compiled in
parallel and timed one by one, see `evaluation.jobs`; all times come from the bench.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import statistics
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

from stride_jax.config import from_dict, to_dict
from stride_jax.data.config import DataConfig
from stride_jax.decoding.rules import parse_rule
from stride_jax.errors import InputError
from stride_jax.evaluation import parity
from stride_jax.evaluation.bench import (
    Batch,
    Decoder,
    Progress,
    compile_all,
    silent,
    time_in_turns,
    time_programs,
)
from stride_jax.evaluation.config import AcceleratorConfig
from stride_jax.evaluation.experiments import Report, run
from stride_jax.evaluation.job_file import Facts, Job
from stride_jax.evaluation.jobs import Measure, run_jobs
from stride_jax.evaluation.programs import CONTEXT
from stride_jax.evaluation.results import Row, content, make_directory
from stride_jax.evaluation.subject import parse_rules
from stride_jax.evaluation.training_steps import bare_steps, random_series
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.testing.accelerator_decoders import trained_decoders, untrained_decoders
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import check
from stride_jax.training.config import OptimConfig, TrainConfig
from stride_jax.training.step import initial_state, next_patch_task, steps_per_epoch

ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Variables of processes that share a GPU: none takes its memory for itself."""


@run.register
def accelerator(
    config: AcceleratorConfig, progress: Progress = silent, loaded: None = None
) -> Report:
    """All jobs of a config; rows that a run before has written are kept.

    Raises:
        InputError: an unknown rule, no job that was measured, or rows in the way that were measured
            with another config, device or commit.
    """
    parse_rules(config.rules, 1)
    parse_rules(config.exact_rules, 1)
    out = make_directory(Path(config.setup.out))
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((out / "programs").resolve()))
    jobs = jobs_of(config)
    rows = run_jobs(
        jobs,
        functools.partial(prepare, to_dict(config)),
        out / "rows.jsonl",
        facts=facts_of(config),
        processes=config.processes,
        seconds=60 * config.minutes,
        progress=progress,
    )
    if not rows:
        raise InputError(
            f"no job was measured; give more --minutes, or see the errors in {out / 'rows.jsonl'}."
        )
    missing = len(jobs) - len({row["job"] for row in rows})
    about = {"missing": missing, "commit": _commit(), "xla_flags": _flags()}
    return Report(content("accelerator", rows, config, **about))


def _device() -> str:
    """The kind of the first device."""
    return str(jax.devices()[0].device_kind)


def _in_another_process(function: Callable[[], str]) -> str:
    """The result of a function there, so that this process does not take the device for itself."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function).result()


def _flags() -> str:
    """The flags of the compiler that the environment sets."""
    return os.environ.get("XLA_FLAGS", "")


def _commit() -> str | None:
    """The commit of this package, or None where it is no checkout.

    It is `dirty` where files of the package are changed, not where results are.
    """
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        done = subprocess.run(
            [*git, "describe", "--always"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], check=False).returncode
    return done.stdout.strip() + "-dirty" * bool(changed)


NO_FACTS = (
    *("layers", "num_vars", "batches", "kinds", "num_draft", "dtypes"),  # in the jobs
    *("horizons", "exact_rules"),  # in the jobs too
    *("out", "processes", "minutes"),  # change no row
)
"""Fields of the config that may differ between a run and one that goes on with it."""


def facts_of(config: AcceleratorConfig) -> Facts:
    """Device, versions, flags and fields of the config that rows depend on besides their jobs."""
    fields = to_dict(config)
    fields |= fields.pop("setup")
    device = _device() if config.processes == 0 else _in_another_process(_device)
    fixed = {name: value for name, value in fields.items() if name not in NO_FACTS}
    here = {"device": device, "jax": jax.__version__, "commit": _commit(), "xla_flags": _flags()}
    return here | fixed


def jobs_of(config: AcceleratorConfig) -> list[Job]:
    """The jobs, what matters most first."""
    jobs: list[Job] = [
        {"kind": "trained pair", "horizon": horizon, "batch": batch}
        for horizon, batch in itertools.product(config.setup.horizons, config.batches)
    ]
    for dtype in config.dtypes:
        jobs += _untrained_jobs(config, dtype)
        for layers, num_vars in itertools.product(config.layers, config.num_vars):
            sizes = {"layers": layers, "num_vars": num_vars, "dtype": dtype}
            jobs.append({"kind": "training", **sizes})
    jobs += [{"kind": "exactness", "rule": rule} for rule in config.exact_rules]
    return [*jobs, {"kind": "parity"}]


def _untrained_jobs(config: AcceleratorConfig, dtype: str) -> list[Job]:
    """The untrained pairs of one dtype, the deepest targets with one variable in full."""
    jobs = []
    first = dtype == config.dtypes[0]
    cells = itertools.product(config.num_vars, config.batches, reversed(config.layers))
    for num_vars, batch, layers in cells:
        central = layers == max(config.layers) and num_vars == min(config.num_vars)
        full = central and first
        kinds = config.kinds if full else config.kinds[:2]
        lengths = config.num_draft if full else config.num_draft[:1]
        if central or first:
            sizes = {"layers": layers, "num_vars": num_vars, "batch": batch, "dtype": dtype}
            drafts = [[kind, count] for kind, count in itertools.product(kinds, lengths)]
            jobs.append({"kind": "untrained pair", **sizes, "drafts": drafts})
    return jobs


def prepare(fields: dict[str, Any], job: Job) -> Measure:
    """Compiles a job of a config that is given as a dictionary."""
    config = from_dict(AcceleratorConfig, fields)
    kinds: dict[str, Callable[[AcceleratorConfig, Job], Measure]] = {
        "trained pair": _trained,
        "untrained pair": _untrained,
        "training": _training,
        "exactness": _exactness,
        "parity": _parity,
    }
    return kinds[job["kind"]](config, job)


def _untrained(config: AcceleratorConfig, job: Job) -> Measure:
    """The target alone and with each draft, every proposal accepted."""
    return _measure(config, *untrained_decoders(config, job))


def _trained(config: AcceleratorConfig, job: Job) -> Measure:
    """The trained pair: the target alone, and with each draft by each rule."""
    measure = _measure(config, *trained_decoders(config, job))
    texts = [None, *(text for _ in config.setup.drafts for text in config.rules)]
    return lambda: [{**row, "rule": text} for row, text in zip(measure(), texts, strict=True)]


def _measure(config: AcceleratorConfig, decoders: list[Decoder], batches: list[Batch]) -> Measure:
    """Rows of decoders that take turns; the first one is what the others are compared with."""
    # The processes share the cores, so that the jobs that matter most are compiled first.
    threads = max(1, (os.cpu_count() or 1) // max(1, config.processes))
    programs = compile_all(decoders, batches[0], threads=threads)

    def measure() -> list[Row]:
        measured = time_programs(decoders, programs, batches)
        return [
            {
                "method": one.decoder.method,
                "draft": one.decoder.label.draft,
                "num_draft": one.decoder.config.num_draft if one.decoder.draft else 0,
                "accepted": one.tally.scores()["acceptance"] if one.decoder.draft else None,
                "milliseconds": 1000 * one.seconds,
                "speedup": measured[0].seconds / one.seconds,
                "compile_seconds": one.program.compile_seconds,
                "memory_mib": one.program.memory_bytes / 2**20,
            }
            for one in measured
        ]

    return measure


def _training(config: AcceleratorConfig, job: Job) -> Measure:
    """Steps per second of a target without a loop around them."""
    model = TimerXLConfig(
        d_model=config.d_model,
        d_ff=2 * config.d_model,
        num_layers=job["layers"],
        dtype=job["dtype"],
    )
    data = DataConfig(source="random", context_len=CONTEXT * model.patch_len)
    train = TrainConfig(data=data, model=model, optim=OptimConfig(batch_size=config.training_batch))
    steps = config.training_steps
    length = 14400 + 2 * steps * config.training_batch
    series = random_series(train, job["num_vars"], length)
    task = next_patch_task(train, series)
    params = init_params(jax.random.key(config.setup.seed), train.trained_model)
    state = initial_state(params, train.optim, steps_per_epoch(task, train.optim))
    bare = bare_steps(task, train.optim, state, series.values, steps)
    bare()  # compiles

    def measure() -> list[Row]:
        (times,) = time_in_turns([lambda _: bare()], config.repeats)
        per_second = steps / statistics.median(times)
        return [{"batch": config.training_batch, "steps_per_second": per_second}]

    return measure


def _exactness(config: AcceleratorConfig, job: Job) -> Measure:
    """The test of a rule's distribution, on this device."""
    rule = parse_rule(job["rule"])

    def measure() -> list[Row]:
        scale = 1.3 if rule.scales == "free" else 1.0
        problem = make_problem(num_vars=2, delta=1.0, draft_scale=scale)
        tested = check(problem, rule, kind="cached", num_series=config.exact_paths)
        return [{"p": tested["p"], "accepted": tested["acceptance"], "paths": config.exact_paths}]

    return measure


def _parity(config: AcceleratorConfig, job: Job) -> Measure:
    """The largest errors against the recorded outputs, with products at precision `highest`.

    Raises:
        InputError: there are no recorded outputs.
    """
    paths = parity.cases(Path(config.golden))
    if not paths:
        raise InputError(f"there are no recorded outputs in {config.golden!r}; set --golden.")

    def measure() -> list[Row]:
        rows = [parity.compare(path) for path in paths]
        largest = {name: max(row[name] for row in rows) for name in ("outputs", "rolled")}
        return [{"cases": len(rows), **largest}]

    return measure
