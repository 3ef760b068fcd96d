// Load on groups: everybody is in one, and writes to all its members.
//
//   JWT_SECRET=<the node's first secret> k6 run loadtest/k6/groups.js
//
// URL      ws://127.0.0.1:8086/chat/ws  where the gateway (or the load balancer before it) listens
// COMPRESS 1: connections offer permessage-deflate
// HTTP     http://127.0.0.1:8086        the same, for REST, where the groups are made
// PROFILE  full: 10 groups of 50; everybody sends every 10 s, for 2 minutes (2,500 deliveries a second)
//          short: 4 groups of 10; everybody sends every 2 s, for 16 s
//
// User groups-<n> makes or joins a group of this run. The content carries the time of sending, so that the receivers, in
// the same process and so by the same clock, measure the delivery.

import exec from 'k6/execution';
import http from 'k6/http';
import ws from 'k6/ws';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { chosen, connecting, holes, isCompressed, listen, token } from './client.js';

const profile = chosen({
  full: { groups: 10, size: 50, seconds: 120, sendEveryMs: 10000, quietMs: 2000, lateMs: 200 },
  // For debug builds on busy machines: that it works, not how fast.
  short: { groups: 4, size: 10, seconds: 16, sendEveryMs: 2000, quietMs: 5000, lateMs: 2000 },
});
const url = __ENV.URL || 'ws://127.0.0.1:8086/chat/ws';
const rest = __ENV.HTTP || 'http://127.0.0.1:8086';

// All are connected before anybody writes, and stay until the last message has had `quietMs` to arrive.
const users = profile.groups * profile.size;

const delivery = new Trend('delivery', true);
const acknowledgement = new Trend('acknowledgement', true);
const sentMessages = new Counter('messages_sent');
const receivedMessages = new Counter('messages_received');

export const options = {
  scenarios: {
    groups: {
      executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: `${profile.seconds + 30}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    delivery: [`p(95)<${profile.lateMs}`],
    acknowledgement: [`p(95)<${profile.lateMs}`],
    // Without this a run in which nothing arrives would pass: an empty trend has no percentile to fail.
    messages_received: ['count>0'],
  },
};

// Makes the groups and tells everybody theirs, and when to begin and to end.
export function setup() {
  const run = Date.now();
  const groups = [];
  for (let group = 0; group < profile.groups; group += 1) {
    const members = [];
    for (let place = 0; place < profile.size; place += 1) members.push(user(group * profile.size + place + 1));
    const body = { kind: 'group', title: `k6 ${group}`, members };
    const answer = http.post(`${rest}/api/v1/conversations`, JSON.stringify(body), {
      headers: { Authorization: `Bearer ${token(members[0])}`, 'Content-Type': 'application/json' },
    });
    if (answer.status >= 300) throw new Error(`group ${group} was not made: ${answer.status} ${answer.body}`);
    groups.push(answer.json('id'));
  }
  const begin = Date.now() + profile.quietMs;
  return { run, groups, begin, end: begin + profile.seconds * 1000 };
}

export default function ({ run, groups, begin, end }) {
  const vu = exec.vu.idInTest;
  const me = user(vu);
  const group = groups[Math.floor((vu - 1) / profile.size)];
  const waiting = {}; // tempId -> when it was sent
  const seen = {}; // message.seq in the group -> when it came
  const due = (end - begin - 2 * profile.quietMs) / profile.sendEveryMs;
  let authenticated = 0; // when
  let faults = 0;
  let sent = 0;

  const response = ws.connect(url, connecting({ headers: { Authorization: `Bearer ${token(me)}` } }), (socket) => {
    const fault = (what) => {
      faults += 1;
      console.error(`${me}: ${what}`);
    };
    const send = () => {
      const tempId = `${run}-${vu}-${sent}`;
      const now = Date.now();
      sent += 1;
      waiting[tempId] = now;
      sentMessages.add(1);
      const payload = { conversationId: group, tempId, content: JSON.stringify({ text: 'to all of us', at: now }) };
      socket.send(JSON.stringify({ type: 'message.send', payload }));
    };
    const handlers = {
      auth_success: () => {
        authenticated = Date.now();
        // Apart from each other by chance, or all members would send in the same millisecond.
        const first = Math.max(0, begin - authenticated) + Math.random() * profile.sendEveryMs;
        socket.setTimeout(() => {
          send();
          socket.setInterval(() => {
            if (Date.now() < end - profile.quietMs) send();
          }, profile.sendEveryMs);
        }, 1 + first);
      },
      'message.sent': ({ tempId, message }) => {
        seen[message.seq] = Date.now();
        acknowledgement.add(Date.now() - waiting[tempId]);
        delete waiting[tempId];
      },
      'message.new': ({ message }) => {
        if (message.seq in seen) fault(`message ${message.seq} came twice`);
        seen[message.seq] = Date.now();
        receivedMessages.add(1);
        delivery.add(Date.now() - JSON.parse(message.content).at);
      },
      auth_failed: (payload) => fault(`auth_failed ${JSON.stringify(payload)}`),
      error: (payload) => fault(`error ${JSON.stringify(payload)}`),
    };
    listen(socket, handlers, fault);
    socket.setTimeout(() => socket.close(), Math.max(1, end - Date.now()));
  });

  // Everybody was there from the first message to the last, so that everybody has all of them.
  check(response, {
    'upgraded (101)': (r) => r && r.status === 101,
    'compressed, if that was offered': (r) => r && isCompressed(r),
    'auth_success before anybody wrote': () => authenticated > 0 && authenticated < begin,
    'message.sent for every message': () => sent >= Math.floor(due) && Object.keys(waiting).length === 0,
    'every message of the group': () => 1 in seen && holes(seen, begin, end) === 0,
    'messages of all members': () => Object.keys(seen).length >= profile.size * Math.floor(due),
    'no error frame': () => faults === 0,
  });
}

function user(number) {
  return `groups-${number}`;
}
