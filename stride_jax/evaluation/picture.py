"""The picture of an evaluation: one test window, decoded for a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.errors import nearest
from stride_jax.evaluation.bench import Batch, Decoder, Program, Progress, compile_all
from stride_jax.evaluation.figures.forecasts import Picture
from stride_jax.evaluation.subject import Loaded, Subject, describe


def plotted(name: str, loaded: Loaded, progress: Progress) -> int:
    """The number of the variable in the picture, the first one for an empty name.

    So it is for a name that is not in the data, too, as that of a config is where the flags name
    another series; a line says so.
    """
    names = list(loaded.data.names)
    if name and name not in names:
        hint = nearest(name, names)
        progress(f"no variable {name!r} to plot, so it is {names[0]!r} (--plot_variable). {hint}")
    return names.index(name) if name in names else 0


def draw_window(
    subject: Subject,
    decoders: Sequence[Decoder],
    horizon: int,
    variable: int,
    programs: Sequence[Program] | None = None,
) -> Picture | None:
    """The middle test window by the target, a draft and a rule; None without a rule.

    Args:
        subject: series and models.
        decoders: of one path each; the first target and, of the speculative ones, the first that
            samples are drawn, with the draft of the latter.
        horizon: steps.
        variable: number of the variable.
        programs: of the decoders, for one window; None compiles those that are drawn.
    """
    rules = [decoder for decoder in decoders if decoder.rule is not None]
    if not rules:
        return None
    last = next((decoder for decoder in rules if decoder.samples), rules[0])
    target = next(decoder for decoder in decoders if decoder.method == "target")
    drafts = [decoder for decoder in decoders if decoder.method == "draft"]
    shown = [target, next(d for d in drafts if d.label.draft == last.label.draft), last]
    batch = _middle(subject, horizon, variable)
    if programs is None:
        programs = compile_all(shown, batch)
    else:
        places = {id(decoder): program for decoder, program in zip(decoders, programs, strict=True)}
        programs = [places[id(decoder)] for decoder in shown]
    decoded = [p.decode(d, batch) for p, d in zip(programs, shown, strict=True)]
    return _picture(subject, last, batch, decoded, variable)


def _middle(subject: Subject, horizon: int, variable: int) -> Batch:
    """The middle window of the test split, of one variable where they are separate."""
    windows = subject.windows(horizon)
    skipped = variable if windows.separate else 0  # windows are laid out variable-major
    index = jnp.asarray([windows.num_starts * skipped + windows.num_starts // 2])
    series = windows.gather(subject.values, index)
    key, weight = jax.random.key(subject.setup.seed), jnp.ones(1)
    return Batch(key, series[:, :-horizon], series[:, -horizon:], index, weight)


def _picture(
    subject: Subject, last: Decoder, batch: Batch, decoded: Sequence[Any], variable: int
) -> Picture:
    """The picture of one window in the units of the file."""
    data, separate = subject.data, batch.truth.shape[-1] < len(subject.data.names)

    def units(x: Any) -> np.ndarray:
        values = np.asarray(x)[..., 0 if separate else variable]
        return np.asarray(values * data.std[variable] + data.mean[variable])

    (target, _), (draft, _), (path, info) = jax.tree.map(lambda x: np.asarray(x)[0, 0], decoded)
    row = describe(subject, last)
    return Picture(
        context=units(batch.context[0])[-last.config.horizon :],
        truth=units(batch.truth[0]),
        target=units(target),
        draft=units(draft),
        speculative=units(path),
        proposal=units(info.proposal),
        origin=info.origin,
        patch_len=subject.target.patch_len,
        title=f"{row['data']}, the middle test window, horizon {row['horizon']}; rule "
        f"{row['rule']}, K = {row['num_draft']}, sigma = {row['sigma']:.3f} (standardised)",
        unit=data.names[variable],
        trace=info.trace,
    )
