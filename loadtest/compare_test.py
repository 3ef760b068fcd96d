"""compare.py with made-up results: python3 -B -m unittest discover -s loadtest -p compare_test.py"""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

import compare

SVG = "{http://www.w3.org/2000/svg}"


def round_of(rate, cpu, delivered=1000, store=None):
    return {"delivered": delivered, "delivered_per_second": rate, "cpu_seconds_per_million": cpu, "delivery_ms": {"p99": 7.0},
            "store_cpu_seconds_per_million": store}


def herd_of(last_ms, back=100, faults=0, steady=0.2, load=0.3):
    return {"connections": 100, "back": back, "back_ms": {"max": last_ms}, "resumed": 98, "resyncs": 2,
            "refusals": {"status 503": 3, "close 4100": 4}, "oracle": {"faults": {"lost": faults, "doubled": 0}},
            "store_load": {"steady": steady, "herd": load}}


RESULTS = {
    ("parley", "5000"): [round_of(5000, 90), round_of(4990, 100), round_of(4000, 300)],
    ("parley", "10000"): [round_of(10000, 60)],
    ("parley", "peak"): [round_of(20000, 50)],
    ("nats", "5000"): [round_of(5000, 200), round_of(0, 0, delivered=0)],
    ("ws-ioredis", "5000"): [round_of(0, 0, delivered=0)],
    ("parley", "idle"): [{"kb_per_connection": 1.5}],
}


def drawn(results=RESULTS):
    """The lines by colour, each a list of places in pixels, and the words."""
    root = xml.fromstring(compare.plot(results, compare.PEERS))
    places = lambda path: [tuple(map(float, place.split())) for place in path.get("d").removeprefix("M").split(" L")]
    lines = {path.get("stroke"): places(path) for path in root.iter(SVG + "path") if path.get("class") == "peer"}
    return root, lines, [words.text for words in root.iter(SVG + "text")]


class Plot(unittest.TestCase):
    def test_a_line_for_each_peer_that_delivered(self):
        root, lines, words = drawn()
        parley, nats = lines["#c0392b"], lines["#b9770e"]
        self.assertEqual((len(lines), len(parley), len(nats)), (2, 3, 1))
        self.assertEqual(len(list(root.iter(SVG + "circle"))), 4)
        self.assertIn("● nats", words)
        self.assertNotIn("● ws-ioredis", words)

    def test_points_are_medians_where_the_axes_say(self):
        _, lines, words = drawn()
        # Up to 20,000 a second on 520 pixels from 60 on, up to 200 core-seconds on 240 pixels from 300 upwards.
        self.assertEqual(lines["#c0392b"], [(189.7, 180.0), (320.0, 228.0), (580.0, 240.0)])
        self.assertEqual(lines["#b9770e"], [(190.0, 60.0)])
        self.assertIn("20,000", words)
        self.assertIn("200", words)

    def test_everything_is_inside(self):
        root, _, _ = drawn({("nats", "peak"): [round_of(123456, 0.037)], ("parley", "peak"): [round_of(1, 987.6)]})
        for circle in root.iter(SVG + "circle"):
            self.assertTrue(60 <= float(circle.get("cx")) <= 580 and 60 <= float(circle.get("cy")) <= 300)
        for words in root.iter(SVG + "text"):
            self.assertTrue(0 <= float(words.get("x")) <= 640 and 0 <= float(words.get("y")) <= 360)

    def test_without_a_delivery_there_is_no_plot(self):
        self.assertIsNone(compare.plot({("nats", "5000"): [round_of(0, 0, delivered=0)]}, compare.PEERS))

    def test_ticks_are_round_and_reach_the_highest(self):
        self.assertEqual(compare.ticks(20000), [0, 5000, 10000, 15000, 20000])
        self.assertEqual(compare.ticks(259), [0, 100, 200, 300])
        self.assertEqual(compare.ticks(1), [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0])


class Table(unittest.TestCase):
    def rows(self, results):
        """{figure: [goal, reached, what stands for each peer…]}; of several with one name the first."""
        rows = {}
        for line in compare.table(results, compare.PEERS).splitlines()[2:]:
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows.setdefault(name, cells)
        return rows

    def reached(self, name, results):
        return self.rows(results)[name][1]

    def test_each_goal_beside_a_peer_is_met_missed_or_unknown(self):
        cpu, ephemeral = "core-seconds per million at 5,000/s", "core-seconds per million, ephemeral, at 5,000/s"
        for own, centrifuge, said in [(60, 180, "yes"), (61, 180, "**no**"), (60, None, "–")]:
            peers = {("centrifuge", "5000"): [round_of(5000, centrifuge)]} if centrifuge else {}
            self.assertEqual(self.reached(cpu, {("parley", "5000"): [round_of(5000, own)], **peers}), said)
        for own, nats, said in [(82, 82, "yes"), (83, 82, "**no**")]:
            results = {("parley", "ephemeral"): [round_of(5000, own)], ("nats", "ephemeral"): [round_of(5000, nats)]}
            self.assertEqual(self.reached(ephemeral, results), said)
        self.assertEqual(self.rows({("nats", "5000"): [round_of(5000, 82)]})[cpu][1], "–", "Parley was not measured")

    def test_the_peak_that_counts_is_the_one_without_a_store(self):
        results = {("parley", "peak"): [round_of(9000, 90)], ("parley-without-store", "peak"): [round_of(33000, 60)],
                   ("centrifuge", "peak"): [round_of(13000, 130)]}
        self.assertEqual(self.reached("sustained peak per second", results), "yes")
        results["parley-without-store", "peak"] = [round_of(32000, 60)]
        self.assertEqual(self.reached("sustained peak per second", results), "**no**")

    def test_connects_are_measured_by_a_number_and_by_the_best_peer(self):
        storm = lambda rate: [{"connects_per_second": rate, "failed": {}}]
        for own, peers, said in [(12000, [3000, 2000], "yes"), (12000, [5000], "**no**"), (9000, [1000], "**no**"),
                                 (9000, [], "**no**"), (12000, [], "–")]:
            results = {("parley", "storm"): storm(own), **{(peer, "storm"): storm(rate) for peer, rate in zip(["nats", "centrifuge"], peers)}}
            self.assertEqual(self.reached("connects per second", results), said, (own, peers))
        self.assertEqual(self.rows(results)["connects that failed"][:3], ["≤ 0", "yes", "0"])

    def test_the_database_has_a_row_of_its_own(self):
        rows = self.rows({("parley", "5000"): [round_of(5000, 90, store=195.5)], ("nats", "5000"): [round_of(5000, 80)]})
        self.assertEqual(rows["PostgreSQL's on top"], ["", "–", "196", "–", "–", "–", "–", "–", "–"])
        self.assertEqual(rows["core-seconds per million at 5,000/s"][2:], ["90.0", "–", "–", "–", "–", "–", "80.0"])

    def test_a_herd(self):
        rows = self.rows({("parley", "herd"): [herd_of(4200), herd_of(4600), herd_of(4400, load=0.5)]})
        names = ["seconds until the last of 10,000 is back after a node's kill", "faults that the oracle found", "resumed",
                 "told to fetch (resync)", "refused meanwhile", "the store's load meanwhile, times steady"]
        said = [(rows[name][1], rows[name][2]) for name in names]
        self.assertEqual(said, [("yes", "4.40 (4.20 to 4.60)"), ("yes", "0 (0 to 0)"), ("–", "98.0 (98.0 to 98.0)"),
                                ("–", "2.00 (2.00 to 2.00)"), ("–", "7.00 (7.00 to 7.00)"), ("yes", "1.50 (1.50 to 2.50)")])
        rows = self.rows({("parley", "herd"): [herd_of(100, back=99, faults=1, steady=0)]})
        self.assertEqual([rows[name][1:3] for name in names[:2]], [["**no**", "never"], ["**no**", "1.00"]])
        self.assertNotIn(names[5], rows, "nothing to compare with")

    def test_stored_messages_beside_bulk_inserts(self):
        rows = self.rows({("parley", "store"): [{"stored_per_second": 17000, "ratio": 0.45}]})
        self.assertEqual(rows["the same, of what bulk inserts of them reach"][:3], ["≥ 0.5", "**no**", "0.45"])


class Page(unittest.TestCase):
    def test_the_section_takes_its_own_place(self):
        first = compare.section(RESULTS, "| old |\n", None, "2026-01-01")
        page = compare.put("# Results\n\nBefore.\n", first) + "\n## Behind\n"
        again = compare.put(page, compare.section(RESULTS, "| new |\n", "<svg/>", "2026-02-02"))
        self.assertTrue(again.startswith("# Results\n\nBefore.\n\n" + compare.BEGIN))
        self.assertTrue(again.endswith(compare.END + "\n\n## Behind\n"))
        self.assertIn("Medians of 3 rounds", again)
        self.assertIn("](compare.svg)", again)
        self.assertTrue("| new |" in again and "| old |" not in again and "2026-01-01" not in again)

    def test_from_files_to_the_page(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for (peer, work), rounds in RESULTS.items():
                for number, found in enumerate(rounds):
                    (folder / f"{peer}.{work}.{number + 1}.json").write_text(json.dumps(found))
            page = folder / "page" / "RESULTS.md"
            page.parent.mkdir()
            page.write_text("# Results\n")
            sys.argv = ["compare.py", str(folder), str(page)]
            with contextlib.redirect_stdout(io.StringIO()):
                compare.main()
            self.assertIn("| core-seconds per million at 5,000/s | ≤ 1/3 of centrifuge's | – | 100 (90.0 to 300) | – | 200 |", page.read_text())
            xml.parse(page.parent / "compare.svg")


if __name__ == "__main__":
    unittest.main()
