#!/usr/bin/env python3
"""A backend that takes the events of the gateway, and a judge of what it took.

    WEBHOOK_SECRET=… receiver.py listen PORT FILE    takes events on 127.0.0.1:PORT, appends each to FILE as a line of JSON
    receiver.py judge FILE < stored                  compares them with what is stored: lines "message id<TAB>conversation"

The judge fails unless every stored message came as message.created, and nothing that isn't stored did; unless the events of each
conversation came in order of id and of rev, the first time each; and unless a repetition under an id tells of the same event.
"""
import hashlib
import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What never differs between two posts of one event. The message itself is as it is when it is posted.
FIXED = ("type", "at", "conversationId", "rev", "messageId", "userId")


def verified(secret, header, body):
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(secret, parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    # Clocks are stepped on purpose while the gateway is tested, so how old a signature is isn't looked at.
    return hmac.compare_digest(expected, parts.get("v1", ""))


def listen(port, path):
    secret = os.environ["WEBHOOK_SECRET"].encode()
    one_at_a_time = threading.Lock()
    with open(path, "a", encoding="utf-8") as file:

        class Receiver(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not verified(secret, self.headers.get("X-Parley-Signature", ""), body):
                    return self.answer(503)
                with one_at_a_time:
                    for event in json.loads(body)["events"]:
                        kept = {field: event[field] for field in FIXED if field in event}
                        file.write(json.dumps({"id": int(event["id"]), **kept}) + "\n" if "conversationId" in event else "")
                    file.flush()
                return self.answer(204)

            def do_GET(self):
                self.answer(204)

            def answer(self, status):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
        server.daemon_threads = True
        server.serve_forever()


def faults(events, stored):
    """What is wrong with the events, in the order in which they came; at most ten explanations of each kind."""
    found, seen, newest = [], {}, {}
    for event in events:
        fixed = {field: event.get(field) for field in FIXED}
        if event["id"] in seen:
            if seen[event["id"]] != fixed:
                found.append(f"the id {event['id']} stands for two events: {seen[event['id']]} and {fixed}")
            continue
        seen[event["id"]] = fixed
        last_id, last_rev = newest.get(event["conversationId"], (0, 0))
        rev = event.get("rev", last_rev + 1)
        if event["id"] <= last_id or rev <= last_rev:
            found.append(f"out of order in {event['conversationId']}: {event} behind {last_id} with rev {last_rev}")
        newest[event["conversationId"]] = (event["id"], event.get("rev", last_rev))
    told = {e["messageId"]: e["conversationId"] for e in seen.values() if e["type"] == "message.created"}
    found += [f"message {id} of {stored[id]} never came" for id in sorted(stored.keys() - told.keys())[:10]]
    found += [f"message {id} came and isn't stored" for id in sorted(told.keys() - stored.keys())[:10]]
    found += [f"message {id} came for {told[id]}" for id in told.keys() & stored.keys() if told[id] != stored[id]][:10]
    return found


def judge(path, lines):
    stored = dict(line.rstrip("\n").split("\t") for line in lines if line.strip())
    with open(path, encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    found = faults(events, stored)
    for fault in found[:20]:
        print(fault)
    kinds = len({event["id"] for event in events})
    print(f"{len(events)} events came, {len(events) - kinds} of them again; {len(stored)} messages are stored")
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "listen":
        listen(int(sys.argv[2]), sys.argv[3])
    elif len(sys.argv) == 3 and sys.argv[1] == "judge":
        sys.exit(judge(sys.argv[2], sys.stdin))
    else:
        sys.exit(__doc__)
