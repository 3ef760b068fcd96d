"""The table and the plot of loadtest/compare.sh, from its JSON files: medians, and the spread in parentheses.

    python3 loadtest/compare.py DIRECTORY [RESULTS.md]

Writes compare.md and compare.svg into the directory and prints the table. If a page is named, both also become a section of
it, in place of the one that stands there, with the plot beside the page. Standard library only.
"""

import datetime
import html
import json
import math
import pathlib
import statistics
import sys

PEERS = ["parley", "centrifuge", "socket.io", "ws-ioredis", "nats"]
# The works whose CPU per message the plot shows, each at its own rate.
PLOTTED = ["5000", "10000", "peak"]
COLOURS = ["#c0392b", "#2471a3", "#229954", "#7d3c98", "#b9770e"]
# The plot's size, and the room around its axes, in pixels.
WIDTH, HEIGHT, EDGE = 640, 360, 60
# What encloses the section in the page.
BEGIN, END = "<!-- loadtest/compare.sh --results writes from here -->", "<!-- to here -->"
# Of nothing that arrived there is neither a price nor a time.
def of_deliveries(read):
    return lambda found: read(found) if found["delivered"] else None


# Each figure: the work that gives it, its name, how it is read from the work's JSON.
FIGURES = [
    ("idle", "RSS per idle connection, KB", lambda found: found["kb_per_connection"]),
    ("storm", "connects per second", lambda found: found["connects_per_second"]),
    ("storm", "connects that failed", lambda found: sum(found["failed"].values())),
    ("5000", "core-seconds per million at 5,000/s", of_deliveries(lambda found: found["cpu_seconds_per_million"])),
    ("5000", "p99 ms at 5,000/s", of_deliveries(lambda found: found["delivery_ms"]["p99"])),
    ("10000", "core-seconds per million at 10,000/s", of_deliveries(lambda found: found["cpu_seconds_per_million"])),
    ("10000", "delivered per second at 10,000/s", lambda found: found["delivered_per_second"]),
    ("peak", "sustained peak per second", lambda found: found["delivered_per_second"]),
    ("group", "last delivery to 1,000, median ms", lambda found: found["last_delivery_ms"]["p50"]),
]


def load(directory):
    """All results: {(peer, work): [result of each round]}."""
    results = {}
    for path in sorted(directory.glob("*.json")):
        stem, _round = path.stem.rsplit(".", 1)
        peer, work = stem.rsplit(".", 1)
        results.setdefault((peer, work), []).append(json.loads(path.read_text()))
    return results


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(results, read):
    values = [value for value in map(read, results) if value is not None]
    if not values:
        return "–"
    spread = f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 else ""
    return number(statistics.median(values)) + spread


def table(results, peers):
    lines = ["| figure | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for work, name, read in FIGURES:
        cells = [cell(results.get((peer, work), []), read) for peer in peers]
        if any(text != "–" for text in cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curves(results, peers):
    """{peer: [(delivered per second, core-seconds per million)] by rate}; medians over the rounds that delivered anything."""
    lines = {}
    for peer in peers:
        points = []
        for work in PLOTTED:
            found = [one for one in results.get((peer, work), []) if one["delivered"]]
            if found:
                points.append(tuple(statistics.median(one[key] for one in found)
                                    for key in ("delivered_per_second", "cpu_seconds_per_million")))
        if points:
            lines[peer] = sorted(points)
    return lines


def ticks(highest):
    """Round numbers from 0 until one is not below the highest, some five of them."""
    raw = highest / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [step * count for count in range(math.ceil(highest / step) + 1)]


def text(x, y, words, anchor="middle", colour="black"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'


def plot(results, peers):
    """CPU per message over the rate as SVG, one line a peer; None without a single point."""
    lines = curves(results, peers)
    if not lines:
        return None
    points = [point for line in lines.values() for point in line]
    across, up = (ticks(max(point[axis] for point in points) or 1) for axis in (0, 1))
    place = lambda rate, cpu: (EDGE + rate / across[-1] * (WIDTH - 2 * EDGE), HEIGHT - EDGE - cpu / up[-1] * (HEIGHT - 2 * EDGE))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text(WIDTH / 2, HEIGHT - 15, "messages delivered per second"),
           text(10, EDGE - 40, "core-seconds per million messages", "start")]
    for rate in across:
        x, y = place(rate, 0)
        out.append(text(x, y + 18, f"{rate:,.10g}"))
    for cpu in up:
        x, y = place(0, cpu)
        out += [f'<path d="M{x:.1f} {y:.1f} H{WIDTH - EDGE}" stroke="#dddddd"/>', text(x - 6, y + 4, f"{cpu:,.10g}", "end")]
    for number_of_line, (peer, line) in enumerate(lines.items()):
        colour = COLOURS[number_of_line % len(COLOURS)]
        places = [place(*point) for point in line]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        out.append(f'<path class="peer" d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        # A legend in one row: names at the ends of lines would lie upon each other.
        out.append(text(EDGE + 110 * number_of_line, EDGE - 18, f"● {peer}", "start", colour))
    return "\n".join(out + ["</svg>"]) + "\n"


def section(results, written, drawn, today):
    """What the page says: how it was measured, the table, and the plot if there is one."""
    rounds = max(len(found) for found in results.values())
    lines = [BEGIN, f"## Beside what else one could install ({today})", "", "```sh",
             f"loadtest/compare.sh --times {rounds} --results", "```", "",
             f"The same driver and machine, two nodes each. Medians of {rounds} rounds, and from the lowest to the highest. CPU is the "
             "nodes' and Redis'; Parley's PostgreSQL comes on top, and Parley alone stores and acknowledges each message.", "", written]
    if drawn:
        lines += ["![Core-seconds per million messages over the rate](compare.svg)", ""]
    return "\n".join(lines + [END]) + "\n"


def put(page, new):
    """The page with the section in place of the one that stands there, or at its end."""
    if BEGIN not in page:
        return page.rstrip("\n") + "\n\n" + new
    before, rest = page.split(BEGIN, 1)
    if END not in rest:
        sys.exit(f"the page has \"{BEGIN}\" without \"{END}\" behind it")
    return before + new + rest.split(END, 1)[1].removeprefix("\n")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python3 loadtest/compare.py DIRECTORY [RESULTS.md]")
    directory = pathlib.Path(sys.argv[1])
    results = load(directory)
    peers = [peer for peer in PEERS if any(known == peer for known, _ in results)]
    if not peers:
        sys.exit(f"{directory} holds no results")
    written = table(results, peers)
    (directory / "compare.md").write_text(written)
    drawn = plot(results, peers)
    if drawn:
        (directory / "compare.svg").write_text(drawn)
    print(written)
    if len(sys.argv) == 3:
        page = pathlib.Path(sys.argv[2])
        page.write_text(put(page.read_text(), section(results, written, drawn, datetime.date.today())))
        if drawn:
            (page.parent / "compare.svg").write_text(drawn)


if __name__ == "__main__":
    main()
