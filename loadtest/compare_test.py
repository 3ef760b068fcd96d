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


def round_of(rate, cpu, delivered=1000):
    return {"delivered": delivered, "delivered_per_second": rate, "cpu_seconds_per_million": cpu, "delivery_ms": {"p99": 7.0}}


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
        parley, nats = lines[compare.COLOURS[0]], lines[compare.COLOURS[1]]
        self.assertEqual((len(lines), len(parley), len(nats)), (2, 3, 1))
        self.assertEqual(len(list(root.iter(SVG + "circle"))), 4)
        self.assertIn("● nats", words)
        self.assertNotIn("● ws-ioredis", words)

    def test_points_are_medians_where_the_axes_say(self):
        _, lines, words = drawn()
        # Up to 20,000 a second on 520 pixels from 60 on, up to 200 core-seconds on 240 pixels from 300 upwards.
        self.assertEqual(lines[compare.COLOURS[0]], [(189.7, 180.0), (320.0, 228.0), (580.0, 240.0)])
        self.assertEqual(lines[compare.COLOURS[1]], [(190.0, 60.0)])
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
            self.assertIn("| core-seconds per million at 5,000/s | 100 (90.0 to 300) | – | 200 |", page.read_text())
            xml.parse(page.parent / "compare.svg")


if __name__ == "__main__":
    unittest.main()
