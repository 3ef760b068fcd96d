// A storm of connects on /chat/ws: all users connect in the same moment, write to each other in pairs, close, and do it
// again in the next wave.
//
//   JWT_SECRET=<the node's first secret> k6 run loadtest/k6/storm.js
//
// URL      ws://127.0.0.1:8086/chat/ws  where the gateway (or the load balancer before it) listens
// COMPRESS 1: connections offer permessage-deflate
// PROFILE  full: 1000 users, six waves of 10 s; 500 messages in each
//          short: 50 users, three waves of 8 s; seconds late is good enough
//
// `connecting` goes from the wave's moment to `auth_success`, so that what a user has to wait for counts, whatever it
// waits for; `delivery` from sending to the partner, who is in the same process and has the same clock.

import exec from 'k6/execution';
import ws from 'k6/ws';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { chosen, connecting, isCompressed, listen, token } from './client.js';

const profile = chosen({
  full: { users: 1000, waves: 6, waveMs: 10000, connectingMs: 1500, deliveryMs: 100 },
  // For debug builds on busy machines: that it works, not how fast.
  short: { users: 50, waves: 3, waveMs: 8000, connectingMs: 3000, deliveryMs: 2000 },
});
const url = __ENV.URL || 'ws://127.0.0.1:8086/chat/ws';

// Users are made and sign their tokens before the first wave.
const LEAD_MS = 2000;
// Within a wave: when the first of those who write does so, and the last, and when all close.
const SEND_FROM = 0.4;
const SEND_TO = 0.6;
const CLOSE_AT = 0.9;

const connectingTime = new Trend('connecting', true);
const delivery = new Trend('delivery', true);
const connections = new Counter('connections_authenticated');
const sentMessages = new Counter('messages_sent');
const receivedMessages = new Counter('messages_received');

export const options = {
  scenarios: {
    storm: {
      executor: 'per-vu-iterations', vus: profile.users, iterations: profile.waves,
      maxDuration: `${LEAD_MS + profile.waves * profile.waveMs + 15000}ms`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    connecting: [`p(95)<${profile.connectingMs}`],
    delivery: [`p(95)<${profile.deliveryMs}`],
    connections_authenticated: [`count==${profile.users * profile.waves}`],
    // One of each pair writes to the other, once a wave.
    messages_received: [`count==${(profile.users / 2) * profile.waves}`],
  },
};

export function setup() {
  return { begin: Date.now() + LEAD_MS };
}

let bearer; // This user's token, for all waves.

export default function ({ begin }) {
  const vu = exec.vu.idInTest;
  const writes = vu % 2 === 1;
  const me = `storm-${vu}`;
  const partner = `storm-${writes ? vu + 1 : vu - 1}`;
  const wave = begin + exec.vu.iterationInScenario * profile.waveMs;
  const at = (part) => Math.max(1, wave + part * profile.waveMs - Date.now());
  bearer = bearer || token(me);
  sleep(Math.max(0, wave - Date.now()) / 1000);

  let authenticated = false;
  let done = false; // The message was acknowledged, or came.
  let faults = 0;
  const response = ws.connect(url, connecting({ headers: { Authorization: `Bearer ${bearer}` } }), (socket) => {
    const fault = (what) => {
      faults += 1;
      console.error(`${me}: ${what}`);
    };
    const send = () => {
      const payload = { to: partner, tempId: `${me}-${wave}`, content: JSON.stringify({ wave, at: Date.now() }) };
      sentMessages.add(1);
      socket.send(JSON.stringify({ type: 'message.send', payload }));
    };
    const handlers = {
      auth_success: () => {
        authenticated = true;
        connections.add(1);
        connectingTime.add(Date.now() - wave);
        if (writes) socket.setTimeout(send, at(SEND_FROM + (SEND_TO - SEND_FROM) * (vu / profile.users)));
      },
      'message.sent': () => { done = true; },
      'message.new': ({ message }) => {
        const content = JSON.parse(message.content);
        if (content.wave !== wave) return fault(`a message of another wave: ${message.content}`);
        done = true;
        receivedMessages.add(1);
        delivery.add(Date.now() - content.at);
        return undefined;
      },
      auth_failed: (payload) => fault(`auth_failed ${JSON.stringify(payload)}`),
      error: (payload) => fault(`error ${JSON.stringify(payload)}`),
    };
    listen(socket, handlers, fault);
    socket.setTimeout(() => socket.close(), at(CLOSE_AT));
  });
  check(response, {
    'upgraded (101)': (r) => r && r.status === 101,
    'compressed, if that was offered': (r) => r && isCompressed(r),
    'auth_success': () => authenticated,
    'the message was acknowledged, or came': () => done,
    'no error frame': () => faults === 0,
  });
}
