// Clients that live through a rolling restart: a socket that the server moves (4200) comes back where it was, sends again
// what was not acknowledged, and misses nothing; REST requests beside it never fail.
//
//   JWT_SECRET=<the nodes' first secret> SECONDS=60 k6 run loadtest/k6/rolling.js
//
// URL      ws://127.0.0.1:8080/chat/ws   the load balancer
// COMPRESS 1: connections offer permessage-deflate
// HTTP     http://127.0.0.1:8080         the same, for REST
// USERS    40                            they write to each other in pairs, a message a second each
// MOVES    1                             how often each is moved at least
// It ends with a table of its own counters; a check that failed once fails the run.

import exec from 'k6/execution';
import http from 'k6/http';
import ws from 'k6/ws';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { connecting, isCompressed, token } from './client.js';

const url = __ENV.URL || 'ws://127.0.0.1:8080/chat/ws';
const rest = __ENV.HTTP || 'http://127.0.0.1:8080';
const seconds = Number(__ENV.SECONDS || 60);
const users = Number(__ENV.USERS || 40);
const moves = Number(__ENV.MOVES || 1);

// The acknowledgements of what was sent last have this long to come.
const ACK_WAIT_MS = 3000;
const DRAINING = 4200;
const CLOSED_BY_US = 1000;

const moved = new Counter('sockets_moved');
const resumed = new Counter('sockets_resumed');
const acknowledged = new Counter('messages_acknowledged');
const received = new Counter('messages_received');

export const options = {
  scenarios: {
    sockets: {
      executor: 'per-vu-iterations', exec: 'sockets', vus: users, iterations: 1, maxDuration: `${seconds + 30}s`,
    },
    requests: {
      executor: 'constant-arrival-rate', exec: 'requests', rate: 20, timeUnit: '1s', duration: `${seconds}s`,
      // All of them from the beginning: while k6 makes another one, it drops the request that needs it.
      preAllocatedVUs: 50, maxVUs: 50,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    dropped_iterations: ['count==0'],
    sockets_moved: [`count>=${users * moves}`],
    sockets_resumed: [`count>=${users * moves}`],
    messages_received: ['count>0'],
  },
};

export function requests() {
  const user = `rolling-${exec.scenario.iterationInTest % users}`;
  const answer = http.get(`${rest}/api/v1/conversations`, { headers: { Authorization: `Bearer ${token(user)}` } });
  check(answer, { 'REST answers 200': (r) => r.status === 200 });
}

export function sockets() {
  const number = exec.vu.idInTest % users;
  const client = {
    me: `rolling-${number}`,
    partner: `rolling-${number % 2 === 0 ? (number + 1) % users : number - 1}`,
    position: null, // {epoch, seq}: what this client has
    waiting: {}, // tempId -> content, sent and not acknowledged
    sent: 0,
    until: Date.now() + seconds * 1000,
  };
  let faults = 0;
  while (Date.now() < client.until) {
    faults += connection(client);
    // Those who are moved together don't come back together.
    sleep(Math.random() * 0.2);
  }
  check(client, {
    'every message was acknowledged': (c) => c.sent > 0 && Object.keys(c.waiting).length === 0,
    'no fault on any connection': () => faults === 0,
  });
}

// One connection, until the server moves it or the time is over; how many things went wrong.
function connection(client) {
  let faults = 0;
  let code = 0;
  let reason = '';
  const asked = client.position;
  const fault = (what) => {
    faults += 1;
    console.error(`${client.me}: ${what}`);
  };
  const query = asked ? `?resume=${asked.epoch}:${asked.seq}` : '';
  const response = ws.connect(url + query, connecting({ headers: { Authorization: `Bearer ${token(client.me)}` } }), (socket) => {
    const command = (type, payload) => socket.send(JSON.stringify({ type, payload }));
    const send = (tempId) => command('message.send', { to: client.partner, tempId, content: client.waiting[tempId] });

    const handlers = {
      auth_success: ({ epoch, seq, resumed: goesOn }) => {
        if (asked && !goesOn) fault(`was not resumed from ${asked.epoch}:${asked.seq}`);
        if (asked && goesOn) resumed.add(1);
        client.position = { epoch, seq };
        Object.keys(client.waiting).forEach(send);
        socket.setInterval(() => {
          if (Date.now() > client.until - ACK_WAIT_MS) return;
          const tempId = `${client.me}-${client.until}-${client.sent}`;
          client.waiting[tempId] = `message ${client.sent}`;
          client.sent += 1;
          send(tempId);
        }, 1000);
      },
      'message.sent': ({ tempId }) => {
        if (!(tempId in client.waiting)) return;
        delete client.waiting[tempId];
        acknowledged.add(1);
      },
      'message.new': () => received.add(1),
      resync: (payload) => fault(`resync ${JSON.stringify(payload)}`),
      error: (payload) => fault(`error ${JSON.stringify(payload)}`),
      auth_failed: (payload) => fault(`auth_failed ${JSON.stringify(payload)}`),
    };
    socket.on('message', (data) => {
      const frame = JSON.parse(data);
      if (frame.seq) {
        if (frame.seq !== client.position.seq + 1) fault(`seq ${frame.seq} after ${client.position.seq}`);
        client.position.seq = frame.seq;
      }
      const handler = handlers[frame.type];
      if (handler) handler(frame.payload);
    });
    socket.on('close', (closed) => { code = closed; });
    socket.on('error', (error) => { reason = String(error.error()); });
    socket.setTimeout(() => socket.close(CLOSED_BY_US), Math.max(1, client.until - Date.now()));
  });
  check(response, {
    'upgraded (101)': (r) => r && r.status === 101,
    'compressed, if that was offered': (r) => r && isCompressed(r),
  });
  if (code === DRAINING) moved.add(1);
  else if (code !== CLOSED_BY_US) fault(`closed with ${code} ${reason}`);
  return faults;
}
