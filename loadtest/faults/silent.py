"""Holds connections that never get anywhere: a third asks and reads nothing, a third sends its body byte by byte, a third
never ends its head. What the server closes is opened again.

    python3 silent.py --connections N --seconds S HOST:PORT…
"""

import argparse
import resource
import socket
import time

ASKS = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60
BODY = (
    b"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer x\r\nContent-Length: 60000\r\n\r\n{"
)
HEAD = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-Half: "


class Silent:
    """One connection of a kind."""

    def __init__(self, number, addresses):
        self.number, self.addresses, self.socket = number, addresses, None

    def open(self):
        self.close()
        self.socket = socket.socket()
        # Some addresses share them, so that no share of one address is what keeps the others going.
        self.socket.bind((f"127.0.0.{2 + self.number % 8}", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(2)
        try:
            self.socket.connect(self.addresses[self.number % len(self.addresses)])
            self.socket.setblocking(False)
            self.socket.send((ASKS, BODY, HEAD)[self.number % 3])
        except OSError:
            self.close()

    def trickle(self):
        """One more byte; False if the server has closed."""
        if self.socket is None:
            return False
        if self.number % 3 == 0:
            return True
        try:
            return self.socket.send(b"x") >= 0
        except BlockingIOError:
            return True
        except OSError:
            self.close()
            return False

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def main():
    parser = argparse.ArgumentParser(description="Holds connections that never get anywhere.")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    addresses = [(host, int(port)) for host, port in (address.rsplit(":", 1) for address in options.addresses)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    all_of_them = [Silent(number, addresses) for number in range(options.connections)]
    end, opened = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        begun = time.monotonic()
        for silent in all_of_them:
            if not silent.trickle():
                silent.open()
                opened += 1
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    print(f"opened {opened} connections for {options.connections}")


if __name__ == "__main__":
    main()
