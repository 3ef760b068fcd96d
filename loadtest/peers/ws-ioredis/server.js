// What a user would write by hand: a `ws` server per node, one Redis channel per user by ioredis. Nothing is stored,
// nothing can be resumed. A send is acknowledged when Redis has taken the publications. Speaks the frames of chat.v1 that
// the load driver needs.
//
//   JWT_SECRET=… node server.js PORT REDIS_URL

import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import Redis from 'ioredis'
import jwt from 'jsonwebtoken'
import { WebSocketServer } from 'ws'

const [port, redisUrl] = process.argv.slice(2)
const secret = process.env.JWT_SECRET
const publisher = new Redis(redisUrl, { enableAutoPipelining: true })
const subscriber = new Redis(redisUrl)
const sockets = new Map() // Channel to the sockets that listen to it here.

subscriber.on('message', (channel, text) => {
  for (const socket of sockets.get(channel) ?? []) socket.send(text)
})

const server = createServer((_request, response) => response.end('ok\n'))
const upgrades = new WebSocketServer({ noServer: true, perMessageDeflate: false })

server.on('upgrade', (request, stream, head) => {
  let user
  try {
    user = jwt.verify(request.headers.authorization?.replace('Bearer ', ''), secret, { algorithms: ['HS256'] }).sub
  } catch {
    stream.end('HTTP/1.1 401 Unauthorized\r\n\r\n')
    return
  }
  const group = new URL(request.url, 'http://node').searchParams.get('group')
  upgrades.handleUpgrade(request, stream, head, (socket) => join(socket, user, group))
})

async function join(socket, user, group) {
  const channels = [`user:${user}`, ...(group ? [`group:${group}`] : [])]
  socket.on('close', () => leave(socket, channels))
  socket.on('error', () => {})
  for (const channel of channels) {
    const listening = sockets.get(channel)
    if (listening) listening.add(socket)
    else {
      sockets.set(channel, new Set([socket]))
      await subscriber.subscribe(channel)
    }
  }
  await publisher.set(`online:${user}`, Date.now(), 'EX', 60)
  socket.on('message', (text) => carryOut(socket, user, text))
  socket.send(JSON.stringify({ type: 'auth_success', payload: { userId: user, heartbeatSeconds: 25 } }))
}

function leave(socket, channels) {
  for (const channel of channels) {
    const listening = sockets.get(channel)
    listening?.delete(socket)
    if (listening?.size === 0) {
      sockets.delete(channel)
      subscriber.unsubscribe(channel)
    }
  }
}

async function carryOut(socket, user, text) {
  const { type, payload } = JSON.parse(text)
  if (type !== 'message.send') return
  const { to, conversationId, content, tempId } = payload
  const message = { id: randomUUID(), senderId: user, content, createdAt: new Date().toISOString() }
  const event = JSON.stringify({ type: 'message.new', payload: { message } })
  await publisher.publish(to ? `user:${to}` : `group:${conversationId}`, event)
  // The sender's devices are told as well, and the answer to the sending one is the same frame.
  await publisher.publish(`user:${user}`, JSON.stringify({ type: 'message.sent', payload: { tempId, message } }))
}

setInterval(() => {
  for (const socket of upgrades.clients) socket.ping()
}, 25_000)

server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 }, () => console.log('ready'))
