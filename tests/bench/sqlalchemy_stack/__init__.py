"""The stack that the inventory is measured beside: FastAPI and SQLAlchemy on asyncpg, in one process of uvicorn.

`tables.py` maps the tables that the node's migrations make, `api.py` has the commands and the queries, `stack.py` runs
it. A command writes the model and its outbox row in one transaction; what would carry the events on is a worker of its
own, which does not run. Written as somebody would who knows these libraries; nothing is slowed down.
"""
