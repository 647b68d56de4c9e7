"""A gateway: one worker that handles the messages of ten topics, and a sender that publishes to them.

    python -m examples.gateway_worker            both, until all that was sent is handled (or Ctrl-C)
    python -m examples.gateway_worker worker     the worker alone, until it is stopped
    python -m examples.gateway_worker send       the sender alone

The server is the one at --url, REDIS_URL or REDIS_HOST; where none is named, the first form starts one of its own
(pip install 'redis-worker[embedded]'). A server that is named should be there for trying things out: the default
handler is for every topic that is known on it, and what has been done stays in the hash `gateway:handled`. No other
worker should be at work on these topics, or the first form waits for what the other one handles.

| topic             | shows                                                                         |
|-------------------|-------------------------------------------------------------------------------|
| order.reminder    | messages that are due later                                                   |
| user.notification | eight at a time                                                               |
| system.cleanup    | one at a time                                                                 |
| payment.retry     | `Retry`: the handler says when to try again                                   |
| inventory.alert   | `Reject`: nonsense is a dead letter at once                                   |
| email.send        | idempotent: a message that is published twice under one id is handled once    |
| sms.send          | a time limit, and retries of its own                                          |
| push.notification | twenty at a time                                                              |
| file.process      | a plain function, which runs in a thread                                      |
| data.sync         | batches, of which single messages may fail                                    |
| anything else     | a default handler                                                             |

To make a service of it, copy worker.py and put your own work in place of the notes in the ledger. A worker may
be killed at any time: what it had begun is handled again by another, so handlers should not mind a second time.
"""
