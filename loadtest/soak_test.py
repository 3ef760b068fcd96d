"""The judge of soak.sh on series whose growth is known: python3 -m unittest soak_test"""

import math
import unittest

import soak

HALF_AN_HOUR = range(0, 1800, 10)


def noise(seconds):
    """Waves of two lengths, as garbage and timers make them."""
    return 300_000 * math.sin(seconds / 37) + 200_000 * math.sin(seconds / 11)


class Growth(unittest.TestCase):
    def test_what_only_wavers_does_not_grow(self):
        found = soak.growth([(second, 5e7 + noise(second)) for second in HALF_AN_HOUR])
        self.assertLess(found.lower_bound, soak.MIB)

    def test_three_megabytes_an_hour_are_found_in_the_noise(self):
        found = soak.growth([(second, 5e7 + noise(second) + second * 3 * soak.MIB / 3600) for second in HALF_AN_HOUR])
        self.assertGreater(found.lower_bound, soak.MIB)
        self.assertAlmostEqual(found.per_hour / soak.MIB, 3, delta=1.5)

    def test_the_beginning_is_left_out(self):
        series = {"a_heap_bytes": [(second, min(second, 600) * 1e5) for second in HALF_AN_HOUR]}
        self.assertEqual(soak.judge(series, 600, show=lambda line: None), [])
        self.assertEqual(soak.judge(series, 0, show=lambda line: None), ["a_heap_bytes"])

    def test_a_series_that_could_not_be_measured_fails(self):
        series = soak.read(["second\ta_heap_bytes\tnote\n", "0\t-\t1\n", "10\t\t2\n"])
        self.assertEqual(soak.judge(series, 0, show=lambda line: None), ["a_heap_bytes"])


if __name__ == "__main__":
    unittest.main()
