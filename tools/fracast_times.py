"""Times the original Fracast-0 on histories, in a separate environment (torch).

    other/bin/python tools/fracast_times.py histories.npz forecasts.npz

reads `histories [N, T]` and `horizon`, and writes `quantiles [N, horizon, 9]` and the `seconds [N]`
that each forecast took, one history at a time; `tools/family_on_series.py` runs it in turns with
the decoders. `tools/golden_fracast.py` says how to make the environment.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from fracast import FracastModel


def main() -> None:
    """Forecasts and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("histories", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    given = np.load(args.histories)
    histories, horizon = given["histories"].astype(np.float32), int(given["horizon"])
    model = FracastModel.from_pretrained(weights="fp32")
    model.forecast(histories[0], horizon=horizon)  # as our decoders, warm
    quantiles, seconds = [], []
    for history in histories:
        start = time.perf_counter()
        quantiles.append(model.forecast(history, horizon=horizon))
        seconds.append(time.perf_counter() - start)
    np.savez(args.out, quantiles=np.stack(quantiles), seconds=np.array(seconds))


if __name__ == "__main__":
    main()
