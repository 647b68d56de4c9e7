"""A shop whose work is done by functions as tasks (docs/functions.md): a page, a front, a database, and four functions.

    python -m examples.shop        the front and two worker processes at http://127.0.0.1:8000, until Ctrl-C

An order is a flow of three steps: take the items out of stock, charge the card, send a mail, of which there are two a
second at most. The report of the month shows its progress, and can be cancelled. Kill a worker (`kill -9`) in the
middle: within 8 s another one goes on with what it had.

    tasks.py        the functions                       app.py         the front, in FastAPI
    database.py     stock, orders and mails in SQLite   page.html      the page
    workers.toml    the workers, which the front runs   __main__.py    the command

The server is the one at REDIS_URL; without it, a private one is started. The database is the file at SHOP_DATABASE, by
default in a temporary directory. More workers:

    REDIS_URL=… SHOP_DATABASE=… redis-worker run examples.shop.tasks:queue -w 4

It needs: pip install 'redis-worker[embedded,functions]' fastapi uvicorn
"""
