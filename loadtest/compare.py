"""The table and the plot of loadtest/compare.sh, from its JSON files: medians, and the spread in parentheses.

    python3 loadtest/compare.py DIRECTORY

Writes compare.md and cpu.svg into the directory and prints the table. Standard library only.
"""

import json
import pathlib
import statistics
import sys

PEERS = ["parley", "centrifuge", "socket.io", "ws-ioredis", "nats"]
# Each figure: the work that gives it, its name, how it is read from the work's JSON.
FIGURES = [
    ("idle", "RSS per idle connection, KB", lambda found: found["kb_per_connection"]),
    ("storm", "connects per second", lambda found: found["connects_per_second"]),
    ("storm", "connects that failed", lambda found: sum(found["failed"].values())),
    ("5000", "core-seconds per million at 5,000/s", lambda found: found["cpu_seconds_per_million"]),
    ("5000", "p99 ms at 5,000/s", lambda found: found["delivery_ms"]["p99"]),
    ("10000", "core-seconds per million at 10,000/s", lambda found: found["cpu_seconds_per_million"]),
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


def plot(results, peers):
    """CPU per message over the rate, one line a peer."""
    width, height, edge = 640, 360, 60
    lines = {}
    for peer in peers:
        points = []
        for work in ("5000", "10000", "peak"):
            found = [one for one in results.get((peer, work), []) if one["delivered"]]
            if found:
                points.append(tuple(statistics.median(one[key] for one in found)
                                    for key in ("delivered_per_second", "cpu_seconds_per_million")))
        if points:
            lines[peer] = sorted(points)
    if not lines:
        return None
    rate_max = max(point[0] for points in lines.values() for point in points)
    cpu_max = max(point[1] for points in lines.values() for point in points)
    at = lambda point: (edge + point[0] / rate_max * (width - 2 * edge), height - edge - point[1] / cpu_max * (height - 2 * edge))
    text = lambda x, y, words, anchor="middle": f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<path d="M{edge} {edge} V{height - edge} H{width - edge}" fill="none" stroke="black"/>',
           text(width / 2, height - 15, "messages delivered per second"),
           text(edge, edge - 20, "core-seconds per million messages", "start")]
    for part in (0.25, 0.5, 0.75, 1):
        x, y = at((rate_max * part, cpu_max * part))
        out += [text(x, height - edge + 18, number(rate_max * part)), text(edge - 6, y + 4, number(cpu_max * part), "end")]
    for (peer, points), colour in zip(lines.items(), ("#c0392b", "#2471a3", "#229954", "#7d3c98", "#b9770e")):
        places = [at(point) for point in points]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        out.append(f'<g fill="{colour}">{text(places[-1][0], places[-1][1] - 8, peer)}</g>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    directory = pathlib.Path(sys.argv[1])
    results = load(directory)
    peers = [peer for peer in PEERS if any(known == peer for known, _ in results)]
    if not peers:
        sys.exit(f"{directory} holds no results")
    text = table(results, peers)
    (directory / "compare.md").write_text(text)
    drawn = plot(results, peers)
    if drawn:
        (directory / "cpu.svg").write_text(drawn)
    print(text)


main()
