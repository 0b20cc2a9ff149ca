"""Numbers as Grafana writes them, for the units that our dashboards use."""

import math


def scaled(value, base, names):
    size = 0
    while abs(value) >= base and size < len(names) - 1:
        value, size = value / base, size + 1
    return f"{short(value)}{names[size]}"


def short(value):
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def seconds(value):
    if value == 0:
        return "0 s"
    for limit, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7_200, 1 / 60, "min")):
        if abs(value) < limit:
            return f"{short(value * factor)} {name}"
    return f"{short(value / 3_600)} h"


FORMATS = {
    "short": lambda value: scaled(value, 1_000, ["", " K", " Mil", " Bil"]),
    "s": seconds,
    "bytes": lambda value: scaled(value, 1_024, [" B", " KiB", " MiB", " GiB"]),
    "Bps": lambda value: scaled(value, 1_000, [" B/s", " kB/s", " MB/s", " GB/s"]),
    "cps": lambda value: scaled(value, 1_000, [" c/s", "K c/s"]),
    "reqps": lambda value: scaled(value, 1_000, [" req/s", "K req/s"]),
    "percentunit": lambda value: f"{short(100 * value)}%",
}


def write(value, unit, decimals=None):
    if math.isnan(value):
        return "–"
    if decimals is not None and unit == "short" and abs(value) < 1_000:
        return f"{value:.{decimals}f}"
    return FORMATS[unit](value)
