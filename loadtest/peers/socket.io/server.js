// Socket.IO 4 with its Redis adapter, as its documentation advises: a room per user, JWT in the handshake, WebSocket
// only. Nothing is stored. A send is acknowledged when the event was handed to the adapter.
//
//   JWT_SECRET=… node server.js PORT REDIS_URL

import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { createAdapter } from '@socket.io/redis-adapter'
import Redis from 'ioredis'
import jwt from 'jsonwebtoken'
import { Server } from 'socket.io'

const [port, redisUrl] = process.argv.slice(2)
const secret = process.env.JWT_SECRET
const publisher = new Redis(redisUrl)
const server = createServer((_request, response) => response.end('ok\n'))
const io = new Server(server, {
  adapter: createAdapter(publisher, publisher.duplicate()),
  transports: ['websocket'],
  serveClient: false,
})

io.use((socket, next) => {
  try {
    socket.data.user = jwt.verify(socket.handshake.auth.token, secret, { algorithms: ['HS256'] }).sub
    next()
  } catch {
    next(new Error('unauthorized'))
  }
})

io.on('connection', async (socket) => {
  const { user } = socket.data
  const { group } = socket.handshake.auth
  await socket.join(`user:${user}`)
  if (group) await socket.join(`group:${group}`)
  socket.on('send', ({ to, group, content }, acknowledge) => {
    const message = { id: randomUUID(), senderId: user, content, createdAt: new Date().toISOString() }
    const room = to ? io.to(`user:${to}`) : socket.to(`group:${group}`)
    room.emit('message', message)
    acknowledge({ id: message.id })
  })
  socket.emit('ready', { user })
})

server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 }, () => console.log('ready'))
