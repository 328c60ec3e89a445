"""The stack that WhatsApp sends are measured beside: FastAPI, Celery with prefork workers, Redis between the two.

`api.py` takes `POST /messages` and queues a task, `tasks.py` posts it to Evolution, tries again when that failed, and
keeps the result; `stack.py` runs both. Written as somebody would who knows these libraries; nothing is slowed down.
"""
