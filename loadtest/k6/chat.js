// Load on /chat/ws: pairs of users that write to each other.
//
//   JWT_SECRET=<the node's first secret> k6 run loadtest/k6/chat.js
//
// URL      ws://127.0.0.1:8086/chat/ws  where the gateway (or the load balancer before it) listens
// COMPRESS 1: connections offer permessage-deflate
// PROFILE  full: 1m to 100 users, 2m to 500, 1m to 0; a connection lives 30 s and sends every 5 s
//          short: 20 users for 20 s; a connection lives 10 s and sends every second
//
// User k6-<n> writes to the other one of its pair. The content carries the time of sending, so that the receiver, in the
// same process and so by the same clock, measures the delivery.

import exec from 'k6/execution';
import ws from 'k6/ws';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { chosen, connecting, holes, isCompressed, listen, token } from './client.js';

// `ackWaitMs`: the acknowledgements of what was sent last have this long to come before the connection is closed.
// `lateMs`: two nodes may deliver neighbours in a conversation out of order, by less than this.
const profile = chosen({
  full: {
    stages: [
      { duration: '1m', target: 100 },
      { duration: '2m', target: 500 },
      { duration: '1m', target: 0 },
    ],
    connectionMs: 30000,
    ackWaitMs: 2000,
    lateMs: 1000,
    deliveryMs: 50,
    sendEveryMs: 5000,
  },
  short: {
    stages: [
      { duration: '2s', target: 20 },
      { duration: '16s', target: 20 },
      { duration: '2s', target: 0 },
    ],
    connectionMs: 10000,
    // For debug builds on busy machines: that it works, not how fast.
    ackWaitMs: 4000,
    lateMs: 3000,
    deliveryMs: 2000,
    sendEveryMs: 1000,
  },
});
const url = __ENV.URL || 'ws://127.0.0.1:8086/chat/ws';

const delivery = new Trend('delivery', true);
const acknowledgement = new Trend('acknowledgement', true);
const sentMessages = new Counter('messages_sent');
const receivedMessages = new Counter('messages_received');

export const options = {
  scenarios: {
    chat: { executor: 'ramping-vus', stages: profile.stages, gracefulRampDown: `${profile.connectionMs + 2000}ms` },
  },
  thresholds: {
    checks: ['rate==1'],
    delivery: [`p(95)<${profile.deliveryMs}`],
    // Without this a run in which nothing arrives would pass: an empty trend has no percentile to fail.
    messages_received: ['count>0'],
  },
};

export default function () {
  const vu = exec.vu.idInTest;
  const me = `k6-${vu}`;
  const partner = `k6-${vu % 2 === 1 ? vu + 1 : vu - 1}`;
  const connection = `${me}-${exec.vu.iterationInScenario}-${Date.now()}`;

  const waiting = {}; // tempId -> when it was sent
  const seen = {}; // message.seq in the conversation of the two -> when it came
  let authenticated = 0; // when
  let faults = 0;
  let sent = 0;

  const response = ws.connect(url, connecting(), (socket) => {
    const command = (type, payload) => socket.send(JSON.stringify({ type, payload }));

    const send = () => {
      const tempId = `${connection}-${sent}`;
      const now = Date.now();
      sent += 1;
      waiting[tempId] = now;
      sentMessages.add(1);
      command('message.send', { to: partner, tempId, content: JSON.stringify({ text: 'Load test message', at: now }) });
    };

    const handlers = {
      auth_success: () => {
        authenticated = Date.now();
        // Apart from each other by chance, or all users of a stage would send in the same millisecond.
        socket.setTimeout(() => {
          send();
          socket.setInterval(() => {
            if (Date.now() < lastSend) send();
          }, profile.sendEveryMs);
        }, 1 + Math.random() * profile.sendEveryMs);
      },
      'message.sent': ({ tempId, message }) => {
        seen[message.seq] = Date.now();
        if (!(tempId in waiting)) return; // Sent on an earlier connection of this user.
        acknowledgement.add(Date.now() - waiting[tempId]);
        delete waiting[tempId];
      },
      'message.new': ({ message }) => {
        seen[message.seq] = Date.now();
        receivedMessages.add(1);
        delivery.add(Date.now() - JSON.parse(message.content).at);
      },
      auth_failed: (payload) => fault('auth_failed', payload),
      error: (payload) => fault('error', payload),
    };

    const fault = (type, payload) => {
      faults += 1;
      console.error(`${me}: ${type} ${JSON.stringify(payload)}`);
    };

    const lastSend = Date.now() + profile.connectionMs - profile.ackWaitMs;
    socket.on('open', () => command('auth', { token: token(me) }));
    listen(socket, handlers, (what) => fault('socket', what));
    socket.setTimeout(() => socket.close(), profile.connectionMs);
  });

  check(response, {
    'upgraded (101)': (r) => r && r.status === 101,
    'compressed, if that was offered': (r) => r && isCompressed(r),
    'auth_success': () => authenticated > 0,
    'message.sent for every message': () => sent > 0 && Object.keys(waiting).length === 0,
    'no hole in the conversation': () => holes(seen, authenticated + profile.lateMs, Date.now() - profile.lateMs) === 0,
    'no error frame': () => faults === 0,
  });
}
