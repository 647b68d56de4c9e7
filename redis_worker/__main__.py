"""`python -m redis_worker` is `redis-worker`."""

from redis_worker.cli.main import main

if __name__ == "__main__":
    main()
