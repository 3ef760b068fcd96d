#!/usr/bin/env python3
"""What an event costs a Redis server: the CPU time of its process for the append script, and the least that could do.

    loadtest/append.py [--before REVISION] [--events 60000] [--rounds 5] [--batches 4,16,64]
    loadtest/append.py --memory                 what a user's log takes of its memory, instead
    loadtest/append.py --calls EVENTS SOCKET [WAY] [--before REVISION]
                                                appends events of one user on a server that is there, and ends it

Starts two servers of its own: one that stands alone, and one that is a whole Cluster, and gets a call for each event. 1,000
users have full logs on each; two connections are subscribed to their channels. Each round takes every way once, so all of
them meet the same machine; the table has the medians. A batch is sent at once. For --memory an hour has 20 seconds, and
a check comes once a second. --before takes the script of an earlier revision along: one of those in which Redis held the
unread counts, and the line of a count was made by lua/unread.lua. Standard library only. Debian packages: redis-server.
"""

import argparse
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LUA = "gateway/src/backbone/redis/lua"
# The lines that gateway/src/backbone/redis/scripts.rs writes, with the settings that a node has by itself.
LIMITS = (
    "local MAXLEN, HOT_MAX, HOT_MS, TTL, LONG_BYTES, LOG_BYTES = 256, 4096, 0, '3600', 2048, 1048576\n"
    "local READ_COUNTS, PUBLISH, NUMSUB = 1000, 'PUBLISH', 'NUMSUB'\n"
)
RARE = ["log.lua", "redo.lua", "trim.lua", "append_rarely.lua"]
READ = ["log.lua", "old.lua", "read.lua"]
# The least: two commands for each event, in a script.
LEAST = """
local replies = {}
for event = 1, #KEYS do
  local at = 3 * event
  local body = ARGV[at + 1]
  local id = redis.call('XADD', KEYS[event], 'NOMKSTREAM', '1-*', 'i', ARGV[1] .. ARGV[at], 'd', body)
  replies[event] = redis.call('PUBLISH', ARGV[at - 1], '{"seq":' .. string.sub(id, 3) .. ',' .. body)
end
return replies
"""
USERS = 1000
# Events that fill the logs before anything is measured.
FILLED = 256 * USERS
# For the memory: an hour in seconds, how many pass, and how many messages a user gets in each.
HOUR_S, HOURS, HOURLY = 20, 4, 10


class Server:
    """A connection to Redis."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.answers = self.socket.makefile("rb")

    def ask(self, *words):
        self.socket.sendall(command(*words))
        return self.answer()

    def answer(self):
        line = self.answers.readline()
        if line[:1] == b"-":
            sys.exit(line.decode())
        if line[:1] == b"*":
            return [self.answer() for _ in range(int(line[1:]))]
        if line[:1] == b"$" and int(line[1:]) >= 0:
            return self.answers.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:].strip().decode()


def command(*words):
    words = [word.encode() if isinstance(word, str) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def script(parts, revision=None):
    """A script as a node assembles it, of the working tree or of a revision."""
    return LIMITS + "".join(read(part, revision) for part in parts)


def append_script(publish, revision=None):
    """The append script as a node assembles it; before, with the line of a count."""
    line = ["unread.lua"] if revision else []
    rarely = "local function rarely()\n" + script(line + RARE, revision) + "end\n"
    parts = [read(part, revision) for part in line]
    return "".join([f"local PUBLISH = '{publish}'\n", *parts, rarely, read("append.lua", revision)])


def read(part, revision=None):
    if revision is None:
        return (ROOT / LUA / part).read_text()
    show = ["git", "show", f"{revision}:{LUA}/{part}"]
    return subprocess.run(show, cwd=ROOT, capture_output=True, check=True, text=True).stdout


def log(user):
    return "chat:log:{chat:user:u%d}" % user


def counts(user):
    return "chat:unread:{chat:user:u%d}" % user


def with_counts(users):
    return [key for user in users for key in (log(user), counts(user))]


def channel(user):
    return f"chat:user:u{user}"


def body(user, event):
    """A message of 200 characters as a node sends it: without its first character, its companion as a reference."""
    message = (
        f'{{"id":"{7001002 + event}","conversationId":"c{user}","seq":{event},"rev":{event},"senderId":"100200",'
        f'"kind":"text","content":"{"x" * 200}","tempId":"temp-1795262400007-1",'
        f'"createdAt":"2026-11-21T12:00:00.007Z"}}'
    )
    return (
        f'"type":"message.new","payload":{{"message":{message}}}}}\n{{"repeats":{len(message)}}}'
    )


class Ways:
    """The ways to append the events of a batch. Each returns the bytes to send, and how many answers come."""

    def __init__(self, server, revision):
        self.is_cluster = "cluster_enabled:1" in server.ask("INFO", "cluster")
        self.publish = "SPUBLISH" if self.is_cluster else "PUBLISH"
        self.now = server.ask("SCRIPT", "LOAD", append_script(self.publish))
        self.least = server.ask("SCRIPT", "LOAD", LEAST.replace("PUBLISH", self.publish))
        self.before = revision and server.ask("SCRIPT", "LOAD", append_script(self.publish, revision))
        self.last = 0

    def all(self):
        before = {
            "the script before, with a count": self.before_with_count,
            "the script before": self.before_without_count,
        }
        ways = (before if self.before else {}) | {
            "the script": self.in_the_script,
            "XADD and PUBLISH in a script": self.in_a_script,
            "XADD and PUBLISH as commands": self.as_commands,
        }
        if not self.is_cluster:
            return ways
        # A call takes the events of one slot. As commands each goes by itself anyway.
        return {name: way if way == self.as_commands else each(way) for name, way in ways.items()}

    def in_the_script(self, users):
        return self.call(self.now, map(log, users), users, ["nonce", 0, now_ms()], lambda _: [""])

    def before_with_count(self, users):
        counted = lambda user: ["c", f"c:c{user}", self.last, 0, f"c{user}"]
        return self.call(self.before, with_counts(users), users, ["nonce", 0, 0, "", now_ms()], counted)

    def before_without_count(self, users):
        return self.call(self.before, with_counts(users), users, ["nonce", 0, 0, "", now_ms()], lambda _: [""])

    def call(self, sha, keys, users, words, rest):
        keys = list(keys)
        for user in users:
            self.last += 1
            words += [channel(user), f":m{self.last}", body(user, self.last), *rest(user)]
        return command("EVALSHA", sha, len(keys), *keys, *words), 1

    def in_a_script(self, users):
        words = [now_ms()]
        for user in users:
            self.last += 1
            words += [channel(user), f":m{self.last}", body(user, self.last)]
        return command("EVALSHA", self.least, len(users), *map(log, users), *words), 1

    def as_commands(self, users):
        commands = b""
        for user in users:
            self.last += 1
            text = body(user, self.last)
            entry = ["1-*", "i", f"{now_ms()}:m{self.last}", "d", text]
            commands += command("XADD", log(user), "NOMKSTREAM", "MAXLEN", "~", 256, *entry)
            commands += command(self.publish, channel(user), f'{{"seq":{self.last},{text}')
        return commands, 2 * len(users)


def each(way):
    """The same with a call for each event, all sent together: what a server of a Cluster gets."""

    def calls(users):
        return b"".join(way([user])[0] for user in users), len(users)

    return calls


def now_ms():
    return int(time.time() * 1000)


def open_logs(server, users, has_counts=False):
    for user in range(users):
        server.ask("XGROUP", "CREATE", log(user), "epoch.1", "1-0", "MKSTREAM")
        server.ask("XSETID", log(user), "1-0")
        if has_counts:
            server.ask("HSET", counts(user), f"c:c{user}", "0 0", "total", 0)


def append(server, way, events, batch, users=USERS):
    sent = 0
    while sent < events:
        # Neighbours in a call have different users, as under load.
        data, answers = way([(sent + place) * 7919 % users for place in range(batch)])
        server.socket.sendall(data)
        for _ in range(answers):
            outcome = server.answer()
            if isinstance(outcome, list) and any(not receivers.isdigit() for receivers in outcome):
                sys.exit(f"not every event was appended: {outcome}")
        sent += batch
    return sent


def cpu_s(pid):
    """How long a process's threads have run."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def subscribe(path, users, publish):
    connection = Server(path)
    word = "SSUBSCRIBE" if publish == "SPUBLISH" else "SUBSCRIBE"
    connection.ask(word, channel(users[0]))
    connection.socket.sendall(b"".join(command(word, channel(user)) for user in users[1:]))
    threading.Thread(target=lambda: all(iter(lambda: connection.socket.recv(1 << 20), b"")), daemon=True).start()


def measure(servers, options):
    """Both servers by turns; `servers` has the socket and the process of each."""
    batches = [int(batch) for batch in options.batches.split(",")]
    ways = {}
    for path, process in servers:
        server = Server(path)
        open_logs(server, USERS, options.before)
        of_server = Ways(server, options.before)
        append(server, of_server.all()["the script"], FILLED, 64)
        for half in (range(USERS // 2), range(USERS // 2, USERS)):
            subscribe(path, half, of_server.publish)
        place = "in a Cluster" if of_server.is_cluster else "one server"
        ways |= {f"{place}: {name}": (server, process.pid, way) for name, way in of_server.all().items()}
    taken = {}
    for _ in range(options.rounds):
        for batch in batches:
            for name, (server, pid, way) in ways.items():
                before = cpu_s(pid)
                sent = append(server, way, options.events, batch)
                taken.setdefault((name, batch), []).append((cpu_s(pid) - before) / sent * 1e6)
    print("| Redis' CPU, us an event; events in a batch: | " + " | ".join(map(str, batches)) + " |")
    print("|---" * (len(batches) + 1) + "|")
    for name in ways:
        cells = [taken[name, batch] for batch in batches]
        print(f"| {name} | " + " | ".join(f"{statistics.median(cell):.1f}" for cell in cells) + " |")


def become_a_cluster(server):
    """Gives all slots to a server that is in no Cluster yet."""
    server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    while "cluster_state:ok" not in server.ask("CLUSTER", "INFO"):
        time.sleep(0.1)


def measure_memory(path, before):
    """Users who stay connected: full logs, and logs of ten messages an hour with and without the checks of a node."""
    server = Server(path)
    rows = []
    ways = Ways(server, before)
    empty = used(server)
    filled = [("256 events, before", ways.before_with_count)] if before else []
    for name, way in [*filled, ("256 events", ways.in_the_script)]:
        server.ask("FLUSHALL")
        open_logs(server, USERS, way == ways.before_with_count)
        append(server, way, FILLED, 64)
        rows.append((name, used(server) - empty))
    limits = LIMITS.replace("'3600'", f"'{HOUR_S}'")
    check = server.ask("SCRIPT", "LOAD", limits + script(READ).removeprefix(LIMITS))
    for name, is_checked in [("never checked", False), ("checked", True)]:
        server.ask("FLUSHALL")
        open_logs(server, USERS)
        epoch = server.ask("INFO", "replication").split("master_replid:")[1][:8] + ".1-1"
        for user in range(USERS):
            server.ask("XGROUP", "DESTROY", log(user), "epoch.1")
            server.ask("XGROUP", "CREATE", log(user), epoch, "1-0")
        began = time.monotonic()
        for message in range(HOURS * HOURLY):
            append(server, ways.in_the_script, USERS, 50)
            while time.monotonic() < began + (message + 1) * HOUR_S / HOURLY:
                for user in range(USERS if is_checked else 0):
                    server.ask("EVALSHA", check, 1, log(user), f"n{user}", message, 1)
                time.sleep(1)
        rows.append((f"ten messages an hour for {HOURS} hours, {name}", used(server) - empty))
    print("| a user's log in Redis, with the counts before | bytes |")
    print("|---|---|")
    for name, taken in rows:
        print(f"| {name} | {taken // USERS:,} |")


def used(server):
    info = server.ask("INFO", "memory")
    return int(next(line.split(":")[1] for line in info.splitlines() if line.startswith("used_memory:")))


def main():
    parser = argparse.ArgumentParser(description="What an event costs a Redis server.")
    parser.add_argument("--before")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="4,16,64")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--calls", type=int)
    parser.add_argument("socket", nargs="?")
    parser.add_argument("way", nargs="?", default="the script")
    options = parser.parse_args()
    if options.calls is not None:
        server = Server(options.socket)
        ways = Ways(server, options.before)
        if ways.is_cluster:
            become_a_cluster(server)
        open_logs(server, 1, options.before)
        append(server, ways.all()[options.way], options.calls, 20, 1)
        server.socket.sendall(command("SHUTDOWN", "NOSAVE"))
        return
    with tempfile.TemporaryDirectory() as folder:
        servers = [start(folder, "alone")]
        try:
            if options.memory:
                measure_memory(servers[0][0], options.before)
            else:
                servers.append(start(folder, "cluster", "--cluster-enabled", "yes"))
                become_a_cluster(Server(servers[1][0]))
                measure(servers, options)
        finally:
            for _, process in servers:
                process.terminate()
                process.wait()


def start(folder, name, *settings):
    """Starts a server; its socket, and the process."""
    path = f"{folder}/{name}.sock"
    own = ["--unixsocket", path, "--save", "", "--dir", folder, "--bind", "127.0.0.1", *settings]
    process = subprocess.Popen(["redis-server", "--port", free_port(), *own], stdout=subprocess.DEVNULL)
    while not os.path.exists(path):
        if process.poll() is not None:
            sys.exit(f"redis-server ended: {' '.join(own)}")
        time.sleep(0.1)
    return path, process


def free_port():
    """A port that nothing listens on, low enough for that of the Cluster's bus: a server of a Cluster needs both."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1] % 20000 + 20000)


if __name__ == "__main__":
    main()
