"""What one client, or a few, can ask for: each kind asks as much as it can, inside or outside of the limits, and counts the
answers. Used by neighbours.sh, which measures what the others get meanwhile.

    python3 abuse.py KIND --http HOST:PORT --seconds S [--rate N] [--members N]

JWT_SECRET signs the tokens, API_KEY makes the groups. Kinds: see KINDS at the end.
"""

import argparse
import base64
import collections
import hashlib
import hmac
import http.client
import json
import os
import select
import socket
import struct
import sys
import threading
import time


def base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(user):
    """A token of HS256, good for an hour."""
    now = int(time.time())
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": user, "iat": now, "exp": now + 3600}]
    signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    key = os.environ["JWT_SECRET"].encode()
    return f"{signed}.{base64url(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def frame(opcode, payload=b"", fin=True):
    """A client's frame, masked with zeros, so that its bytes can be read."""
    head = bytes([(0x80 if fin else 0) | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + b"\0\0\0\0" + payload


def command(kind, reference, payload):
    return frame(1, json.dumps({"type": kind, "ref": reference, "payload": payload}).encode())


class Abuse:
    """One run: where to, how much, and what came back."""

    def __init__(self, options):
        self.host, port = options.http.rsplit(":", 1)
        self.port = int(port)
        self.seconds, self.rate, self.members = options.seconds, options.rate, options.members
        self.end = time.monotonic() + options.seconds
        self.answers = collections.Counter()
        self.name = f"abuse-{os.getpid()}"

    def request(self, method, path, body=None, user=None, patience=60):
        """The status of a REST request with the API key; the body of the answer is read and dropped."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        headers = {"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json"}
        if user:
            headers["X-User-Id"] = user
        try:
            connection.request(method, f"/api/v1/{path}", body=json.dumps(body) if body is not None else None, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            self.answers[f"{method} {answer.status}"] += 1
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException) as fault:
            self.answers[f"{method} {type(fault).__name__}"] += 1
            return 0, None
        finally:
            connection.close()

    def open(self, user):
        """An upgraded socket, or None; what came behind the answer's head is dropped."""
        try:
            link = socket.create_connection((self.host, self.port), timeout=5)
            link.sendall(
                f"GET /chat/ws HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                f"Authorization: Bearer {token(user)}\r\n\r\n".encode()
            )
            status = link.recv(4096).split(b" ", 2)[1].decode()
        except (OSError, IndexError) as fault:
            self.answers[f"connect {type(fault).__name__}"] += 1
            return None
        self.answers[f"connect {status}"] += 1
        if status != "101":
            link.close()
            return None
        return link

    def paced(self, act):
        """Calls `act(number)` at the rate, until the time is over."""
        begun, number = time.monotonic(), 0
        while time.monotonic() < self.end:
            due = begun + number / self.rate
            time.sleep(max(0.0, min(due - time.monotonic(), 0.5)))
            if time.monotonic() >= due:
                act(number)
                number += 1

    def flood(self, link, chunk):
        """Writes `chunk` as fast as it is taken, and drops what comes back; returns the bytes written."""
        written = 0
        link.setblocking(False)
        while time.monotonic() < self.end:
            readable, writable, _ = select.select([link], [link], [], 0.2)
            try:
                if readable and not link.recv(1 << 16):
                    self.answers["closed"] += 1
                    return written
                if writable:
                    written += link.send(chunk)
            except BlockingIOError:
                continue
            except OSError as fault:
                self.answers[f"flood {type(fault).__name__}"] += 1
                return written
        return written

    def group(self, number, kind="group", **more):
        """Makes a group of invented members, the first of whom is `abuse-…-0`."""
        members = [f"{self.name}-{number}-{member}" for member in range(self.members)]
        members[0] = f"{self.name}-0"
        body = {"id": f"{self.name}-{number}", "kind": kind, "title": "abuse", "members": members, **more}
        return self.request("POST", "conversations", body)[0]


def loud_group(abuse):
    """Messages into a group of invented members, as fast as they are answered by REST."""
    abuse.group(0)
    owner = f"{abuse.name}-0"
    abuse.paced(
        lambda number: abuse.request(
            "POST", "messages", {"conversationId": f"{abuse.name}-0", "tempId": f"{abuse.name}-{number}", "content": "loud"}, owner
        )
    )


def edits(abuse):
    """Edits of one message in a group of invented members."""
    abuse.group(0)
    owner = f"{abuse.name}-0"
    body = {"conversationId": f"{abuse.name}-0", "tempId": abuse.name, "content": "first"}
    _, sent = abuse.request("POST", "messages", body, owner)
    message = (sent or {}).get("message", sent or {}).get("id")
    abuse.paced(lambda number: abuse.request("PATCH", f"messages/{message}", {"content": f"edit {number}"}, owner))


def groups(abuse):
    """Eight large groups, made at once, again and again."""

    def make(number):
        while time.monotonic() < abuse.end:
            abuse.group(f"{number}-{time.monotonic_ns()}")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def passwords(abuse):
    """Guesses at a channel's password, each over one socket of one user."""
    abuse.members = 1
    abuse.group(0, kind="channel", visibility="public", password="right")
    link = abuse.open("guesser")
    if link:
        link.settimeout(0.01)

        def guess(number):
            try:
                link.sendall(command("conversation.join", str(number), {"conversationId": f"{abuse.name}-0", "password": "wrong"}))
                abuse.answers["bytes back"] += len(link.recv(65536))
            except TimeoutError:
                pass
            except OSError as fault:
                abuse.answers[type(fault).__name__] += 1

        abuse.paced(guess)


def connects(abuse):
    """One user connects again and again; each socket is dropped at once."""

    def connect(_):
        link = abuse.open("comes-and-goes")
        if link:
            link.close()

    abuse.paced(connect)


def pings(abuse):
    """WebSocket pings, as fast as they are taken."""
    link = abuse.open("pings")
    if link:
        abuse.answers["pings"] = abuse.flood(link, frame(9) * 2000) // 6


def pongs(abuse):
    """Pongs that nobody asked for."""
    link = abuse.open("pongs")
    if link:
        abuse.answers["pongs"] = abuse.flood(link, frame(10) * 2000) // 6


def fragments(abuse):
    """One message of empty fragments that never ends."""
    link = abuse.open("fragments")
    if link:
        link.sendall(frame(1, fin=False))
        abuse.answers["fragments"] = abuse.flood(link, frame(0, fin=False) * 2000) // 6


def slow_hook(abuse):
    """Messages into one conversation, each of which the hook answers late (receiver.py)."""
    link = abuse.open("held-up")
    if link:
        link.settimeout(0.01)

        def say(number):
            payload = {"to": "waits", "tempId": f"{abuse.name}-{number}", "content": f"slow {number}"}
            try:
                link.sendall(command("message.send", str(number), payload))
                back = link.recv(65536)
                abuse.answers["stored"] += back.count(b'"message.sent"')
                abuse.answers["refused"] += back.count(b'"UNAVAILABLE"')
            except TimeoutError:
                pass
            except OSError as fault:
                abuse.answers[type(fault).__name__] += 1

        abuse.paced(say)


KINDS = {
    kind.__name__.replace("_", "-"): kind
    for kind in (loud_group, edits, groups, passwords, connects, pings, pongs, fragments, slow_hook)
}


def main():
    parser = argparse.ArgumentParser(description=f"Kinds: {', '.join(KINDS)}.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--http", required=True, metavar="HOST:PORT")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--members", type=int, default=9000)
    options = parser.parse_args()
    if not {"JWT_SECRET", "API_KEY"} <= os.environ.keys():
        sys.exit("abuse.py: set JWT_SECRET and API_KEY")
    abuse = Abuse(options)
    KINDS[options.kind](abuse)
    print(" ".join(f"{what}={count}" for what, count in sorted(abuse.answers.items())))


if __name__ == "__main__":
    main()
