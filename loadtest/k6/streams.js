// Load on streams of server-sent events: pairs of users that receive by streams and write to each other over REST.
//
//   JWT_SECRET=<the node's first secret> k6 run loadtest/k6/streams.js
//
// HTTP     http://127.0.0.1:8086  where the gateway (or the load balancer before it) listens
// PROFILE  full: 200 users, ten streams of 10 s each, a message every 2 s
//          short: 20 users, three streams of 6 s each, a message every second
//
// k6 can't read a stream: its `http` gives an answer when its last byte has come, and nothing if it was cut off. So each stream
// has a token that expires after some seconds. The node ends the stream then, and k6 has all of it. The next one goes on
// behind the last event, by `Last-Event-ID`. When an event came can't be told in this way; chat.js and the driver
// (`loadtest mixed --stream-share`) measure that.

import exec from 'k6/execution';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { chosen, token } from './client.js';

const profile = chosen({
  full: { users: 200, streams: 10, streamSeconds: 10, sendEveryMs: 2000, quietMs: 1000, lateMs: 200 },
  // For debug builds on busy machines: that it works, not how fast.
  short: { users: 20, streams: 3, streamSeconds: 6, sendEveryMs: 1000, quietMs: 3000, lateMs: 2000 },
});
const rest = __ENV.HTTP || 'http://127.0.0.1:8086';

// Everybody has the first stream before anybody writes: nobody does for `quietMs`.
// While the last stream is open nobody writes, so that it brings what came late.
const perStream = Math.floor((profile.streamSeconds * 1000 - profile.quietMs) / profile.sendEveryMs);
const messages = (profile.streams - 1) * perStream;

const acknowledgement = new Trend('acknowledgement', true);
const sentMessages = new Counter('messages_sent');
const receivedMessages = new Counter('messages_received');
const resumedStreams = new Counter('streams_resumed');

export const options = {
  scenarios: {
    streams: {
      executor: 'per-vu-iterations', vus: profile.users, iterations: 1,
      maxDuration: `${profile.streams * (profile.streamSeconds + 2) + 30}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    acknowledgement: [`p(95)<${profile.lateMs}`],
    // Without these a run in which nothing arrives or goes on would pass.
    messages_received: ['count>0'],
    streams_resumed: [`count>=${profile.users * (profile.streams - 1)}`],
  },
};

export function setup() {
  return { run: Date.now().toString(36) };
}

export default async function ({ run }) {
  const vu = exec.vu.idInTest;
  const me = `streams-${vu}`;
  const partner = `streams-${vu % 2 === 1 ? vu + 1 : vu - 1}`;
  const received = []; // the numbers of the partner's messages, as they came
  let lastId = '';

  for (let stream = 0; stream < profile.streams; stream += 1) {
    const headers = { Accept: 'text/event-stream', Authorization: `Bearer ${token(me, profile.streamSeconds)}` };
    if (lastId) headers['Last-Event-ID'] = lastId;
    const open = http.asyncRequest('GET', `${rest}/api/v1/events`, null, {
      headers, responseType: 'text', timeout: `${profile.streamSeconds + 30}s`, tags: { name: 'stream' },
    });
    sleep(profile.quietMs / 1000);
    for (let number = 0; number < perStream && stream < profile.streams - 1; number += 1) {
      if (!send(me, partner, run, stream * perStream + number)) return;
      sleep(profile.sendEveryMs / 1000);
    }
    const answer = await open;
    const events = parse(answer.body);
    const first = events.find(({ kind }) => kind === 'auth_success');
    const good = check(answer, {
      'a stream (200)': (r) => r.status === 200 && r.headers['Content-Type'] === 'text/event-stream',
      'auth_success comes first': () => first !== undefined && first === events[0],
      'it goes on behind the last event': () => !lastId || (first.data.payload.resumed && first.id === lastId),
      'no resync': () => events.every(({ kind }) => kind !== 'resync'),
    });
    if (!good) return;
    if (lastId) resumedStreams.add(1);
    for (const { kind, id, data } of events) {
      if (id) lastId = id;
      if (kind !== 'message.new') continue;
      const content = JSON.parse(data.payload.message.content);
      if (content.run === run) received.push(content.number);
    }
  }

  receivedMessages.add(received.length);
  check(null, {
    'every message of the partner, once and in order': () =>
      received.length === messages && received.every((number, place) => number === place),
  });
}

// Sends a message and waits until it is stored.
function send(me, to, run, number) {
  const begun = Date.now();
  const body = { to, tempId: `${run}-${number}`, content: JSON.stringify({ run, number }) };
  const answer = http.post(`${rest}/api/v1/messages`, JSON.stringify(body), {
    headers: { Authorization: `Bearer ${token(me)}`, 'Content-Type': 'application/json' },
  });
  sentMessages.add(1);
  acknowledgement.add(Date.now() - begun);
  return check(answer, { 'stored (201)': (r) => r.status === 201 });
}

// The events of a stream: those with data.
function parse(text) {
  const events = (text || '').split('\n\n').map((block) => {
    const event = { kind: '', id: '', data: null };
    for (const line of block.split('\n')) {
      if (line.startsWith('event: ')) event.kind = line.slice(7);
      if (line.startsWith('id: ')) event.id = line.slice(4);
      if (line.startsWith('data: ')) event.data = JSON.parse(line.slice(6));
    }
    return event;
  });
  return events.filter(({ data }) => data !== null);
}
