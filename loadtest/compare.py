"""The table and the plot of loadtest/compare.sh, from its JSON files: medians, and the spread in parentheses; beside each
figure what Parley is to reach, and whether the median does.

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
import typing

PARLEY, WITHOUT_STORE = "parley", "parley-without-store"
PEERS = [PARLEY, WITHOUT_STORE, "centrifugo", "centrifuge", "socket.io", "ws-ioredis", "nats"]
# The works whose CPU per message the plot shows, each at its own rate.
PLOTTED = ["5000", "10000", "peak"]
COLOURS = ["#c0392b", "#e59866", "#17a589", "#2471a3", "#229954", "#7d3c98", "#b9770e"]
# The plot's size, and the room around its axes, in pixels.
WIDTH, HEIGHT, EDGE = 640, 360, 60
# What encloses the section in the page.
BEGIN, END = "<!-- loadtest/compare.sh --results writes from here -->", "<!-- to here -->"


class Goal(typing.NamedTuple):
    """What Parley's median is to reach: `met` is asked with it and with what the peers have, {peer: median}."""
    words: str
    met: typing.Callable
    of: str = PARLEY


class Figure(typing.NamedTuple):
    """A row: the work that gives it, its name, how a round's JSON is read (None: it says nothing), and the goal if any."""
    work: str
    name: str
    read: typing.Callable
    goal: typing.Optional[Goal] = None


def at_most(limit):
    return Goal(f"≤ {limit:,}", lambda own, _: own <= limit)


def at_least(limit):
    return Goal(f"≥ {limit:,}", lambda own, _: own >= limit)


def beside(words, peer, met, of=PARLEY):
    """A goal that names a peer; nobody knows whether it is met where that was not measured."""
    return Goal(words, lambda own, peers: met(own, peers[peer]) if peer in peers else None, of)


def connects(own, peers):
    others = [median for peer, median in peers.items() if peer not in (PARLEY, WITHOUT_STORE)]
    return own >= 10_000 and own >= 3 * max(others) if others else None if own >= 10_000 else False


def of_deliveries(read):
    """Of nothing that arrived there is neither a price nor a time."""
    return lambda found: read(found) if found["delivered"] else None


def cost(found):
    return found["cpu_seconds_per_million"]


def store_cost(found):
    return found.get("store_cpu_seconds_per_million")


def p99(found):
    return found["delivery_ms"]["p99"]


def delivered_per_second(found):
    return found["delivered_per_second"]


def herd_seconds(found):
    """Until the last one is back; endless if somebody never came."""
    return found["back_ms"]["max"] / 1000 if found["back"] == found["connections"] else math.inf


def store_load(found):
    """How many times busier the store was while the herd came back."""
    load = found.get("store_load")
    return load["herd"] / load["steady"] if load and load["steady"] > 0 else None


FIGURES = [
    Figure("idle", "RSS per idle connection, KB", lambda found: found["kb_per_connection"], at_most(2)),
    Figure("storm", "connects per second", lambda found: found["connects_per_second"],
           Goal("≥ 10,000, and 3 times the best peer's", connects)),
    Figure("storm", "connects that failed", lambda found: sum(found["failed"].values()), at_most(0)),
    Figure("ephemeral", "core-seconds per million, ephemeral, at 5,000/s", of_deliveries(cost),
           beside("≤ nats", "nats", lambda own, nats: own <= nats)),
    Figure("ephemeral", "ephemeral delivered per second at 5,000/s", delivered_per_second),
    Figure("5000", "core-seconds per million at 5,000/s", of_deliveries(cost),
           beside("≤ 1/3 of centrifuge's", "centrifuge", lambda own, peer: own <= peer / 3)),
    Figure("5000", "PostgreSQL's on top", of_deliveries(store_cost)),
    Figure("5000", "delivered per second at 5,000/s", delivered_per_second),
    Figure("5000", "p99 ms at 5,000/s", of_deliveries(p99), at_most(5)),
    Figure("10000", "core-seconds per million at 10,000/s", of_deliveries(cost),
           beside("≤ 2/5 of centrifuge's", "centrifuge", lambda own, peer: own <= peer * 2 / 5)),
    Figure("10000", "PostgreSQL's on top", of_deliveries(store_cost)),
    Figure("10000", "delivered per second at 10,000/s", delivered_per_second),
    Figure("peak", "sustained peak per second", delivered_per_second,
           beside("without a store ≥ 2.5 times centrifuge's", "centrifuge", lambda own, peer: own >= 2.5 * peer, WITHOUT_STORE)),
    Figure("group", "last delivery to 1,000, median ms", lambda found: found["last_delivery_ms"]["p50"] or None, at_most(15)),
    Figure("store", "stored, acknowledged messages per second", lambda found: found["stored_per_second"]),
    Figure("store", "the same, of what bulk inserts of them reach", lambda found: found["ratio"], at_least(0.5)),
    Figure("herd", "seconds until the last of 10,000 is back after a node's kill", herd_seconds, at_most(5)),
    Figure("herd", "faults that the oracle found", lambda found: sum(found["oracle"]["faults"].values()), at_most(0)),
    Figure("herd", "resumed", lambda found: found["resumed"]),
    Figure("herd", "told to fetch (resync)", lambda found: found["resyncs"]),
    Figure("herd", "refused meanwhile", lambda found: sum(found["refusals"].values())),
    Figure("herd", "the store's load meanwhile, times steady", store_load, at_most(2)),
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
    if value in (0, math.inf):
        return "0" if value == 0 else "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def values_of(results, figure, peer):
    found = map(figure.read, results.get((peer, figure.work), []))
    return [value for value in found if value is not None]


def cell(values):
    if not values:
        return "–"
    spread = f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 else ""
    return number(statistics.median(values)) + spread


def reached(goal, medians):
    """Whether Parley does, in a word; nothing can be said without its figure, or without the peer that the goal names."""
    met = goal.met(medians[goal.of], medians) if goal and goal.of in medians else None
    return "–" if met is None else "yes" if met else "**no**"


def table(results, peers):
    lines = ["| figure | goal | reached | " + " | ".join(peers) + " |", "|---" * (len(peers) + 3) + "|"]
    for figure in FIGURES:
        values = {peer: values_of(results, figure, peer) for peer in peers}
        medians = {peer: statistics.median(found) for peer, found in values.items() if found}
        if medians:
            cells = [figure.name, figure.goal.words if figure.goal else "", reached(figure.goal, medians)]
            lines.append("| " + " | ".join(cells + [cell(values[peer]) for peer in peers]) + " |")
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
        # A peer has its colour whoever else is there.
        colour = COLOURS[peers.index(peer) % len(COLOURS)]
        places = [place(*point) for point in line]
        path = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        out.append(f'<path class="peer" d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        # A legend in two rows: names at the ends of lines would lie upon each other.
        row, column = divmod(number_of_line, 4)
        out.append(text(EDGE + 140 * column, EDGE - 24 + 15 * row, f"● {peer}", "start", colour))
    return "\n".join(out + ["</svg>"]) + "\n"


def section(results, written, drawn, today):
    """What the page says: how it was measured, the table, and the plot if there is one."""
    rounds = max(len(found) for found in results.values())
    lines = [BEGIN, f"## Beside what else one could install ({today})", "", "```sh",
             f"loadtest/compare.sh --times {rounds} --results", "```", "",
             f"The same driver and machine, two nodes each. Medians of {rounds} rounds, and from the lowest to the highest. CPU is the "
             "nodes' and Redis'; Parley's PostgreSQL is told on top, and Parley alone stores and acknowledges each message. "
             "`parley-without-store` is the same server on a store that answers from memory and keeps nothing. The ephemeral message is "
             "`typing` at Parley, authorised by membership and without content, and at NATS a publication of the same size. "
             "`centrifugo` is Centrifugo 6 without a backend, `centrifuge` the library behind it; both with history and "
             "recovery on.", "", written]
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
