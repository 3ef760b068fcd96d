// What the scripts here share: settings from the environment, tokens, and how many messages of a conversation are missing.

import crypto from 'k6/crypto';
import encoding from 'k6/encoding';

const TOKEN_SECONDS = 3600;

const secret = __ENV.JWT_SECRET;
if (!secret) throw new Error('JWT_SECRET is not set: give the first secret that the gateway checks tokens with');

// The profile that PROFILE names, of those that a script has.
export function chosen(profiles) {
  const name = __ENV.PROFILE || 'full';
  if (!profiles[name]) throw new Error(`PROFILE=${name}: there are ${Object.keys(profiles).join(' and ')}`);
  return profiles[name];
}

// A token that the gateway takes for so long: HS256, the user in `sub`.
export function token(user, seconds = TOKEN_SECONDS) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: now, exp: now + seconds })}`;
  return `${signed}.${crypto.hmac('sha256', secret, signed, 'base64rawurl')}`;
}

// The parameters of a connection. With COMPRESS=1 it offers permessage-deflate.
export function connecting(params = {}) {
  return __ENV.COMPRESS === '1' ? { ...params, compression: 'deflate' } : params;
}

// Whether compression was agreed on, if it was offered.
export function isCompressed(response) {
  return __ENV.COMPRESS !== '1' || /permessage-deflate/.test(response.headers['Sec-Websocket-Extensions'] || '');
}

// Gives the payload of each frame to the handler of its type, and what goes wrong with the socket to `fault`.
export function listen(socket, handlers, fault) {
  socket.on('message', (data) => {
    const frame = JSON.parse(data);
    const handler = handlers[frame.type];
    if (handler) handler(frame.payload);
  });
  socket.on('error', (error) => fault(String(error.error())));
}

// How many messages of a conversation did not come, among those between the first and the last that came in this time:
// all its messages are numbered together, without a gap. `seen` says when each number came.
export function holes(seen, from, to) {
  const seqs = Object.keys(seen).map(Number).filter((seq) => seen[seq] >= from && seen[seq] <= to);
  let missing = 0;
  for (let seq = Math.min(...seqs); seq <= Math.max(...seqs); seq += 1) {
    if (!(seq in seen)) missing += 1;
  }
  return missing;
}
