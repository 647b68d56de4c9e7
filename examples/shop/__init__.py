"""A shop whose work is done by functions as tasks (docs/functions.md): a front, a database, and three functions.

    python -m examples.shop                        the front and a worker in one process, until Ctrl-C
    curl -d '{"customer":"ann@example.com","items":{"pen":2}}' -H 'content-type: application/json' localhost:8000/orders
    curl localhost:8000/orders/ID
    curl localhost:8000/report

The server is the one at REDIS_URL; without it, a private one is started (pip install 'redis-worker[embedded,functions]'
fastapi uvicorn). The database is the file at SHOP_DATABASE, by default `shop.db` in a temporary directory.

tasks.py has the functions, app.py the front. More workers: REDIS_URL=… SHOP_DATABASE=… redis-worker run
examples.shop.tasks:queue -w 4
"""
