#!/usr/bin/env python3
"""A backend that takes the events of the gateway and answers its hook, and a judge of the events it took.

    WEBHOOK_SECRET=… receiver.py listen PORT FILE    takes events on 127.0.0.1:PORT, appends each to FILE as a line of JSON
    WEBHOOK_SECRET=… receiver.py hook PORT           lets everything pass that the hook asks about; "slow…" after 1.9 s
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
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How long the hook waits for the answer about a slow message, in seconds: a little less than HOOK_TIMEOUT.
SLOW = 1.9
# What never differs between two posts of one event. The message itself is as it is when it is posted.
FIXED = ("type", "at", "conversationId", "rev", "messageId", "userId")


def verified(secret, header, body):
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(secret, parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    # Clocks are stepped on purpose while the gateway is tested, so how old a signature is isn't looked at.
    return hmac.compare_digest(expected, parts.get("v1", ""))


class Backend(BaseHTTPRequestHandler):
    """Verifies what is posted, and lets `taken` make the answer's body of it."""

    protocol_version = "HTTP/1.1"
    secret = b""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not verified(self.secret, self.headers.get("X-Parley-Signature", ""), body):
            return self.answer(503)
        told = self.taken(json.loads(body))
        return self.answer(200 if told else 204, told)

    def do_GET(self):
        self.answer(204)

    def taken(self, posted):
        raise NotImplementedError

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(port, backend):
    backend.secret = os.environ["WEBHOOK_SECRET"].encode()
    server = ThreadingHTTPServer(("127.0.0.1", port), backend)
    server.daemon_threads = True
    server.serve_forever()


def listen(port, path):
    one_at_a_time = threading.Lock()
    with open(path, "a", encoding="utf-8") as file:

        class Events(Backend):
            def taken(self, posted):
                with one_at_a_time:
                    for event in posted["events"]:
                        kept = {field: event[field] for field in FIXED if field in event}
                        file.write(json.dumps({"id": int(event["id"]), **kept}) + "\n" if "conversationId" in event else "")
                    file.flush()
                return b""

        serve(port, Events)


def hook(port):
    class Hook(Backend):
        # An answer is one segment, or the kernel waits for the acknowledgement of its head.
        wbufsize = -1

        def taken(self, posted):
            if posted.get("content", "").startswith("slow"):
                time.sleep(SLOW)
            return b'{"allow": true}'

    serve(port, Hook)


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
    elif len(sys.argv) == 3 and sys.argv[1] == "hook":
        hook(int(sys.argv[2]))
    elif len(sys.argv) == 3 and sys.argv[1] == "judge":
        sys.exit(judge(sys.argv[2], sys.stdin))
    else:
        sys.exit(__doc__)
