// BullMQ: asynchronous functions of Node.js.
//
// Several workers, each with a concurrency factor: https://docs.bullmq.io/guide/workers/concurrency
// Jobs in bulk: https://docs.bullmq.io/guide/queues/adding-bulks
'use strict'

const fs = require('node:fs')
const IORedis = require('ioredis')
const { Queue, QueueEvents, Worker } = require('bullmq')

const SLOW = 3000
const [verb, name, number] = process.argv.slice(2)
const connect = () => new IORedis(process.env.PEER_URL, { maxRetriesPerRequest: null })

async function run (job) {
  if (job.name === 'slow') {
    fs.appendFileSync(process.env.PEER_STARTED, 'started\n')
    await new Promise(resolve => setTimeout(resolve, SLOW))
  }
  return job.data.numbers.reduce((sum, value) => sum + value, 0)
}

async function push () {
  const queue = new Queue('peer', { connection: connect() })
  for (let left = Number(number); left > 0; left -= 1000) {
    await queue.addBulk(Array.from({ length: Math.min(1000, left) }, () => ({ name, data: { numbers: [1, 2, 3] } })))
  }
  process.exit(0)
}

async function ask () {
  const queue = new Queue('peer', { connection: connect() })
  const events = new QueueEvents('peer', { connection: connect() })
  await events.waitUntilReady()
  const job = await queue.add(name, { numbers: [1, 2, 3] })
  process.exit(await job.waitUntilFinished(events, 30000) === 6 ? 0 : 1)
}

if (verb === 'work') new Worker('peer', run, { connection: connect(), concurrency: Number(number) })
else (verb === 'push' ? push : ask)()
