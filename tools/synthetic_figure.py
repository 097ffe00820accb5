"""Draws examples of the synthetic series that a model is trained on.

    python tools/synthetic_figure.py docs/results/synthetic_series.png

The first panels show one series of each family, the others windows as training sees them.
"""

import argparse
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from stride_jax.data.synthetic_series import FAMILIES, draw_windows
from stride_jax.decoding.keys import as_key

COLUMNS, ROWS = 4, 5
LENGTH = 512


def main() -> None:
    """Draws and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    key = as_key(args.seed)
    panels = {
        name.replace("_", " "): family(jax.random.fold_in(key, i), LENGTH)
        for i, (name, (family, _)) in enumerate(FAMILIES.items())
    }
    rest = COLUMNS * ROWS - len(panels)
    windows = draw_windows(jax.random.fold_in(key, len(panels)), 64, LENGTH)[:rest, :, 0]
    panels |= {f"window {i + 1}": window for i, window in enumerate(windows)}
    figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(14, 11), constrained_layout=True)
    for axis, (title, series) in zip(axes.flat, panels.items(), strict=True):
        axis.plot(series, linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=80)


if __name__ == "__main__":
    main()
