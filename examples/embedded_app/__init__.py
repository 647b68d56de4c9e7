"""A shop: a web application that runs its workers, described in one file, in its event loop.

    uvicorn examples.embedded_app.fastapi_app:app                    FastAPI
    python -m examples.embedded_app.aiohttp_app                      aiohttp
    uvicorn examples.embedded_app.django_app:application             Django

Run from the root of the repository, with `pip install 'redis-worker[cron]'` and the framework. Redis is the one at
REDIS_URL, or at localhost; the application starts without it as well, and its workers wait. Then:

    curl localhost:8000/orders -d '{"items": {"lamp": 2}}' -H 'content-type: application/json'
    curl localhost:8000/parts
    curl -X POST localhost:8000/supplier/down      the daemon fails repeatedly, until it is given up
    curl -X POST localhost:8000/supplier/up
    curl -X POST localhost:8000/reload             it starts again

(Only the FastAPI application has the last three.)

| file           |                                                                                            |
|----------------|--------------------------------------------------------------------------------------------|
| workers.toml   | the parts: a daemon that follows prices, a pool that prices orders, a cron job             |
| jobs.py        | the functions that workers.toml names                                                      |
| fastapi_app.py | a lifespan, and endpoints that use the pool, show the parts' status, and break the daemon  |
| aiohttp_app.py | the same in a cleanup context                                                              |
| django_app.py  | the same with asgi_lifespan.py, as Django does not support lifespans                       |

The same file can run as a separate service; the application then only pushes and waits:

    WORKERS_MODE=standalone uvicorn examples.embedded_app.fastapi_app:app
    WORKERS_MODE=standalone redis-worker serve examples/embedded_app/workers.toml

Details of embedding: docs/embedding.md.
"""
