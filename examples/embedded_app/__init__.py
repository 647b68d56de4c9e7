"""A shop: a web application that runs its own workers, described in one file, in its own event loop.

    uvicorn examples.embedded_app.fastapi_app:app                    FastAPI
    python -m examples.embedded_app.aiohttp_app                      aiohttp
    uvicorn examples.embedded_app.django_app:application             Django

Run from the root of the repository, with `pip install 'redis-worker[cron]'` and the framework. Redis is the one at
REDIS_URL, or at localhost; the application starts without it as well, and its workers wait. Then:

    curl localhost:8000/orders -d '{"items": {"lamp": 2}}' -H 'content-type: application/json'
    curl localhost:8000/parts
    curl -X POST localhost:8000/supplier/down      the daemon fails, again and again, until it is given up
    curl -X POST localhost:8000/supplier/up
    curl -X POST localhost:8000/reload             it begins anew

(The last three are those of FastAPI alone.)

| file           |                                                                                            |
|----------------|--------------------------------------------------------------------------------------------|
| workers.toml   | what runs: a daemon that follows prices, a pool that prices orders, a cron job             |
| jobs.py        | the functions that it names                                                                |
| fastapi_app.py | a lifespan, and endpoints that use the pool, show how the parts stand, and break the daemon |
| aiohttp_app.py | the same in a cleanup context                                                              |
| django_app.py  | the same with asgi_lifespan.py, for Django itself knows nothing of a lifespan              |

The same file serves as a service of its own, beside an application that then only pushes and waits:

    WORKERS_MODE=standalone uvicorn examples.embedded_app.fastapi_app:app
    WORKERS_MODE=standalone redis-worker serve examples/embedded_app/workers.toml

What embedding means in detail: docs/embedding.md.
"""
