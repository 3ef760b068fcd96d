"""The judge of the events finds what it is there for: python3 -m unittest discover -s loadtest -p 'receiver_test.py'"""
import unittest

from receiver import faults


def created(id, conversation, rev, message, **more):
    return {"id": id, "type": "message.created", "at": "now", "conversationId": conversation, "rev": rev, "messageId": message, **more}


STORED = {"m1": "a", "m2": "a", "m3": "b"}
GOOD = [created(1, "a", 1, "m1"), created(3, "b", 1, "m3"), created(2, "a", 2, "m2")]


class Judge(unittest.TestCase):
    def test_repetitions_and_any_order_of_conversations_are_good(self):
        joined = {"id": 4, "type": "member.joined", "at": "now", "conversationId": "a", "userId": "u"}
        self.assertEqual(faults([*GOOD, GOOD[0], joined, created(9, "a", 3, "m4")], {**STORED, "m4": "a"}), [])

    def test_a_message_that_never_came_or_was_never_stored_is_found(self):
        self.assertEqual(len(faults(GOOD[:2], STORED)), 1)
        self.assertEqual(len(faults([*GOOD, created(5, "b", 2, "m9")], STORED)), 1)
        self.assertEqual(len(faults([*GOOD[:2], created(2, "b", 2, "m2")], STORED)), 2)

    def test_disorder_is_found(self):
        self.assertEqual(len(faults([GOOD[2], GOOD[1], GOOD[0]], STORED)), 1)
        self.assertEqual(len(faults([GOOD[0], GOOD[1], created(2, "a", 1, "m2")], STORED)), 1)

    def test_an_id_for_two_events_is_found(self):
        self.assertEqual(len(faults([*GOOD, created(3, "b", 1, "m8")], STORED)), 1)


if __name__ == "__main__":
    unittest.main()
