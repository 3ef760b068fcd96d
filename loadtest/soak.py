"""Judges the samples of soak.sh: does anything still grow once the load has run for a while?

    python3 soak.py SAMPLES.tsv [--after SECONDS] [--measured-only]

The first line of the file has the names, the first column is the time in seconds. Each other column is a series. Samples of
one moment depend on those before them, so their means over equal stretches of time are compared, not they themselves. A
line is fitted through these means. A series fails if the lower bound of its slope (95 %, one-sided) is above its limit.
"""

import argparse
import math
import sys
from typing import NamedTuple

MIB = 1024 * 1024
# How fast a series may grow in an hour, by the ending of its name. A name without one is shown and not judged.
LIMITS_PER_HOUR = {
    "_heap_bytes": MIB,
    "_rss_bytes": MIB,
    "redis_used_bytes": MIB,
    "_descriptors": 10,
    "_tasks": 10,
    "redis_keys": 100,
    "outbox_bytes": MIB,
}
# Into how many stretches the time is divided.
STRETCHES = 20
# One-sided 95 % quantiles of Student's t, by degrees of freedom; from 30 on the normal one is close enough.
T95 = [
    math.inf, 6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753,
    1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699,
]


class Growth(NamedTuple):
    """A series' growth in an hour: as fitted, and its lower bound; the means of its first and last stretch."""

    per_hour: float
    lower_bound: float
    first: float
    last: float


def limit_of(name):
    """The limit of a series' growth in an hour, or None."""
    return next((limit for ending, limit in LIMITS_PER_HOUR.items() if name.endswith(ending)), None)


def means(points, stretches=STRETCHES):
    """The mean time and value of each stretch that has samples."""
    begin, end = points[0][0], points[-1][0]
    width = (end - begin) / stretches or 1.0
    parts = [[] for _ in range(stretches)]
    for time, value in points:
        parts[min(int((time - begin) / width), stretches - 1)].append((time, value))
    return [
        (sum(time for time, _ in part) / len(part), sum(value for _, value in part) / len(part)) for part in parts if part
    ]


def growth(points):
    """Fits a line through (seconds, value) points; raises ValueError if there are too few."""
    if len(points) < 3:
        raise ValueError(f"{len(points)} samples are too few")
    points = means(points)
    count = len(points)
    if count < 3:
        raise ValueError("the samples lie too close together")
    mean_time = sum(time for time, _ in points) / count
    mean_value = sum(value for _, value in points) / count
    spread = sum((time - mean_time) ** 2 for time, _ in points)
    slope = sum((time - mean_time) * (value - mean_value) for time, value in points) / spread
    residual = sum((value - mean_value - slope * (time - mean_time)) ** 2 for time, value in points)
    error = math.sqrt(residual / (count - 2) / spread)
    t95 = T95[count - 2] if count - 2 < len(T95) else 1.645
    return Growth(slope * 3600, (slope - t95 * error) * 3600, points[0][1], points[-1][1])


def read(lines):
    """The names, and of each name its (seconds, value) points; a field that is no number was not measured."""
    names = lines[0].rstrip("\n").split("\t")
    series = {name: [] for name in names[1:]}
    for line in lines[1:]:
        fields = line.rstrip("\n").split("\t")
        for name, field in zip(names[1:], fields[1:]):
            try:
                series[name].append((float(fields[0]), float(field)))
            except ValueError:
                continue
    return series


def judge(series, after, measured_only=False, show=print):
    """Prints a line for each series; returns the names of those that grow, or that were not measured."""
    growing = []
    show(f"{'series':<24} {'first':>14} {'last':>14} {'an hour':>14} {'at least':>14} {'limit':>10}")
    for name, points in series.items():
        limit = limit_of(name)
        try:
            found = growth([point for point in points if point[0] >= after])
        except ValueError as fault:
            show(f"{name:<24} {fault}")
            if limit is not None:
                growing.append(name)
            continue
        grows = limit is not None and found.lower_bound > limit and not measured_only
        if grows:
            growing.append(name)
        show(
            f"{name:<24} {found.first:>14.0f} {found.last:>14.0f} {found.per_hour:>14.0f} {found.lower_bound:>14.0f}"
            f" {limit if limit is not None else '-':>10}{'  GROWS' if grows else ''}"
        )
    return growing


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Judges the samples of soak.sh.")
    parser.add_argument("samples")
    parser.add_argument("--after", type=float, default=600, help="leave out the seconds before this one")
    parser.add_argument("--measured-only", action="store_true", help="growth is shown, and no fault")
    options = parser.parse_args(arguments)
    with open(options.samples, encoding="utf-8") as file:
        growing = judge(read(file.readlines()), options.after, options.measured_only)
    if growing:
        print(f"grows, or was not measured: {', '.join(growing)}")
    return 1 if growing else 0


if __name__ == "__main__":
    sys.exit(main())
