"""Tasks: the routes that send WhatsApp messages and show what became of them (the HTTP contract, section 4).

From bytes to a task and from its record to bytes. Decides nothing about sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from actors.core.evolution_send import INSTANCE_CHARACTERS_MAX, check_instance
from actors.core.ids import IdSource, derived_task_id, is_task_id, partition_of
from actors.core.phones import parse_phone
from actors.core.policy import MESSAGE_ID_CHARACTERS_MAX, PRINTABLE_ASCII
from actors.core.receipts import Receipt
from actors.core.rendering import rfc3339
from actors.core.tasks import FINAL, STATE_OF, Failure, OnUnknown, TaskPolicy, TaskState, policy_of
from actors.forwarding import Forwarding
from actors.ports import Attempt, Clock, ListCursor, Next, NothingOpen, WrongState
from actors.runtime.outcome import Tell
from actors.task_ports import Enqueued, NewTask, TaskFilter, TaskRecord
from actors.tasks import Tasks, drafted
from router.edge.body import JsonBody
from router.edge.errors import BadInput, Conflict, NotFound
from router.edge.handlers import Soon, body_endpoint, endpoint, hot
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.paging import Cursor, Page
from router.edge.query import Query
from router.edge.usecase import Call, Reply, RequestHeaders, ToReply, asked

TAG = "messages"
ABOUT = "WhatsApp messages, sent through Evolution API as tasks."
ID_PATH = {"task_id": "The task's id, `tsk_…`."}
QUEUED = "Mensaje encolado correctamente para procesamiento"
MESSAGE_CHARACTERS_MAX = 65_536
PHONE_CHARACTERS_MAX = 128
AHEAD_S_MAX = 366 * 86_400.0
WAIT_S_MAX = 60.0
GONE_S = 0.5
"""After this it is noticed that a client which waits has gone."""
_INTERRUPTED = "interrupted: the node stopped before an outcome was recorded"
Instant = Annotated[datetime, Meta(tz=True)]


class NewMessage(Struct, frozen=True, gc=False, kw_only=True):
    """One text for one contact. `eta` (RFC 3339) or `delay` (seconds) say when it is wanted; a time that has passed is
    now. `on_unknown`: what to do when nobody knows whether it was sent; the setting's when absent."""

    phone: Annotated[str, Meta(min_length=1, max_length=PHONE_CHARACTERS_MAX)]
    message: Annotated[str, Meta(min_length=1, max_length=MESSAGE_CHARACTERS_MAX)]
    instance_name: Annotated[str, Meta(min_length=1, max_length=INSTANCE_CHARACTERS_MAX)] | None = None
    message_id: (
        Annotated[str, Meta(min_length=1, max_length=MESSAGE_ID_CHARACTERS_MAX, pattern=PRINTABLE_ASCII)] | None
    ) = None
    eta: Instant | None = None
    delay: Annotated[float, Meta(ge=0, le=AHEAD_S_MAX)] | None = None
    on_unknown: OnUnknown | None = None


class Queued(Struct, frozen=True, gc=False, omit_defaults=True):
    """The task is stored. `duplicate`: a message with this `message_id` was, for this contact, before."""

    success: Literal[True]
    message: str
    task_id: str
    duplicate: bool = False


class TaskView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task. `result` is null while it has not ended; `delivery` how far its message has come on WhatsApp;
    `attempts` counts the tries begun, `log` has them in order, of very many the last."""

    task_id: str
    status: TaskState
    result: Raw
    attempts: int
    created_at: str
    updated_at: str
    instance: str
    phone: str
    eta: str | None = None
    next_attempt_at: str | None = None
    delivery: Receipt | None = None
    log: list[Attempt] = msgspec.field(default_factory=list)


class TaskPage(Struct, frozen=True):
    """A page of tasks: unfinished ones first, then failed, sent and revoked ones."""

    tasks: list[TaskView]
    cursor: str | None


class TaskQuery(Page, frozen=True, kw_only=True):
    """The query of `GET /tasks`."""

    status: TaskState | None = None
    instance: Annotated[str, Meta(min_length=1, max_length=INSTANCE_CHARACTERS_MAX)] | None = None


class WaitQuery(Struct, frozen=True, kw_only=True):
    """The query of `GET /tasks/{task_id}`: for how many seconds to wait until the task has ended."""

    wait: Annotated[float, Meta(ge=0, le=WAIT_S_MAX)] = 0.0


class TaskChanged(Struct, frozen=True):
    """The task's state after the change."""

    task_id: str
    status: TaskState


class MessageRules(Struct, frozen=True, kw_only=True):
    """What holds where a message says nothing itself."""

    instance: str
    on_unknown: OnUnknown
    max_retries: int


LINES_MAX = 4096
"""Contacts of whom is remembered what is the same for all that is sent to them."""
_MESSAGE = JsonBody(NewMessage)
_QUERY = Query(TaskQuery)
_WAIT = Query(WaitQuery)
_CURSOR = Cursor(ListCursor)
_encode = msgspec.json.Encoder().encode
_decode_attempt = msgspec.json.Decoder(Attempt).decode
_NOTHING = Raw(b"null")


class TaskRoutes:
    """The use cases of this file."""

    def __init__(self, tasks: Tasks, forwarding: Forwarding, idempotency: Idempotency, maker: TaskMaker) -> None:
        self._tasks = tasks
        self._forwarding = forwarding
        self._idempotency = idempotency
        self._maker = maker
        self._clock = maker.clock

    @Operation(
        summary="Send a WhatsApp message",
        tag=TAG,
        request=NewMessage,
        responses={202: Queued},
        errors=(503,),
        idempotent=True,
        example={"phone": "+52 1 234 567 890", "message": "Hola Carlos", "instance_name": "mi_instancia"},
    )
    async def send(self, body: bytes, headers: RequestHeaders) -> Reply:
        """Answer `POST /messages`, once the task is stored."""
        draft = self._maker.draft(_MESSAGE.decode(body, headers))
        return await self._idempotency.once(
            "POST", body, headers, lambda scope: asked(partial(self._store, draft, headers.trace, scope))
        )

    def send_soon(self, _params: Mapping[str, str], headers: RequestHeaders) -> Soon | None:
        """The same, unless there is an idempotency key."""
        if headers.idempotency_key:
            return None
        trace = headers.trace
        return lambda body, tell: self._store(self._maker.draft(_MESSAGE.decode(body, headers)), trace, None, tell)

    @Operation(summary="List tasks", tag=TAG, query=TaskQuery, responses={200: TaskPage}, errors=(503,))
    async def list_tasks(self, call: Call) -> Reply:
        """Answer `GET /tasks`."""
        query = _QUERY.decode(call.query)
        wanted = TaskFilter(state=query.status, instance=query.instance)
        start = _CURSOR.decode(query.cursor) or ListCursor()
        rows, following = await self._tasks.list_tasks(wanted, start, query.limit)
        cursor = None if following is None else _CURSOR.encode(following)
        return Reply(200, _encode(TaskPage([_view(row) for row in rows], cursor)))

    @Operation(
        summary="Look at one task, or wait for its end",
        tag=TAG,
        path=ID_PATH,
        query=WaitQuery,
        responses={200: TaskView},
        errors=(404, 503),
    )
    async def get_task(self, call: Call) -> Reply:
        """Answer `GET /tasks/{task_id}`."""
        task_id = _id(call)
        wait_s = _WAIT.decode(call.query).wait
        record = await self._tasks.get(task_id)
        if record is not None and record.state not in FINAL and wait_s > 0:
            await self._ended(task_id, wait_s, call)
            record = await self._tasks.get(task_id)
        if record is None:
            raise _unknown()
        return Reply(200, _encode(_view(record)))

    @Operation(
        summary="Revoke a task that has not started",
        tag=TAG,
        path=ID_PATH,
        responses={200: TaskChanged},
        errors=(404, 409, 503),
    )
    async def revoke_task(self, call: Call) -> Reply:
        """Answer `DELETE /tasks/{task_id}`."""
        task_id = _id(call)
        _check(await self._forwarding.discard(task_id, partition_of(task_id)), "revoked")
        return Reply(200, _encode(TaskChanged(task_id, "REVOKED")))

    @Operation(
        summary="Try a failed or waiting task again now",
        tag=TAG,
        path=ID_PATH,
        responses={202: TaskChanged},
        errors=(404, 409, 503),
        idempotent=True,
    )
    async def retry_task(self, call: Call) -> Reply:
        """Answer `POST /tasks/{task_id}/retry`."""
        task_id = _id(call)

        async def retry(_scope: str | None) -> Reply:
            _check(await self._forwarding.retry(task_id, partition_of(task_id)), "tried again")
            return Reply(202, _encode(TaskChanged(task_id, "PENDING")))

        return await self._idempotency.once("POST", call.body, call.headers, retry)

    async def _ended(self, task_id: str, wait_s: float, call: Call) -> None:
        """Wait for a task's end, as long as there is somebody who waits for the answer."""
        ends_at = self._clock.monotonic() + wait_s
        while (left_s := ends_at - self._clock.monotonic()) > 0 and not call.is_gone():
            if await self._tasks.ended(task_id, min(left_s, GONE_S)):
                return

    def _store(self, draft: Draft, trace: str, scope: str | None, tell: Tell[Enqueued]) -> ToReply[Enqueued]:
        task = self._maker.made(draft, trace, scope)
        # An id that was made for this request, or of its idempotency key, is nobody else's.
        self._tasks.submit(task, tell)
        return partial(_queued, task.task_id, draft.message_id is not None)


class Draft(Struct, frozen=True, gc=False):
    """A message that can be stored: `line` is a task for its contact with nothing to say, the same for all of them.
    `message_id` is the caller's; `due_ms` 0: now."""

    line: NewTask
    text: bytes
    message_id: str | None
    due_ms: int


class TaskMaker:
    """Makes tasks of messages; the rules beyond types. `clock` gives the time that a delay counts from."""

    def __init__(self, rules: MessageRules, ids: IdSource, clock: Clock) -> None:
        self._rules = rules
        self._new_id: Callable[[int], str] = ids.task_id
        self._line_of = lru_cache(maxsize=LINES_MAX)(self._line)
        self.clock = clock

    def draft(self, message: NewMessage) -> Draft:
        """What is known before there is an id. Raises BadInput, BadField."""
        if not message.message.strip():
            raise BadInput("$.message", "says nothing")
        line = self._line_of(message.phone, message.instance_name, message.on_unknown)
        return Draft(line, message.message.encode(), message.message_id, self._due_ms(message))

    def made(self, draft: Draft, trace: str, scope: str | None) -> NewTask:
        """The task with its id: the caller's message id always gives the same one for a contact, as does an idempotency
        key."""
        line, message_id = draft.line, draft.message_id
        if message_id is not None:
            task_id = derived_task_id(line.partition, f"{line.kid}{message_id}")
        elif scope is not None:
            task_id = derived_task_id(line.partition, scope)
        else:
            task_id = self._new_id(line.partition)
        return replace(line, task_id=task_id, payload=draft.text, trace=trace, due_ms=draft.due_ms)

    def _line(self, phone: str, instance_name: str | None, on_unknown: OnUnknown | None) -> NewTask:
        recipient = parse_phone(phone)
        if instance_name is not None:
            check_instance(instance_name)
        policy = TaskPolicy(
            instance=instance_name or self._rules.instance,
            phone=phone,
            number=recipient.number,
            on_unknown=on_unknown or self._rules.on_unknown,
            max_retries=self._rules.max_retries,
        )
        return drafted(policy, recipient.contact, "")

    def _due_ms(self, message: NewMessage) -> int:
        if message.eta is None and message.delay is None:
            return 0
        if message.eta is not None and message.delay is not None:
            raise BadInput("$.delay", "only one of eta and delay")
        now = self.clock.wall()
        at = now + message.delay if message.delay is not None else message.eta.timestamp()  # type: ignore[union-attr]
        if at - now > AHEAD_S_MAX:
            raise BadInput("$.eta", "is more than a year ahead")
        return round(at * 1000) if at > now else 0


def register(app: web.Application, routes: TaskRoutes) -> None:
    """Add the routes."""
    router = app.router
    router.add_post("/messages", hot(body_endpoint(routes.send), soon=routes.send_soon))
    router.add_get("/tasks", endpoint(routes.list_tasks))
    router.add_get("/tasks/{task_id}", hot(endpoint(routes.get_task)))
    router.add_delete("/tasks/{task_id}", endpoint(routes.revoke_task))
    router.add_post("/tasks/{task_id}/retry", endpoint(routes.retry_task))


def _queued(task_id: str, named: bool, stored: Enqueued) -> Reply:
    return Reply(202, _encode(Queued(True, QUEUED, task_id, named and stored.duplicate)))


def _id(call: Call) -> str:
    task_id = call.params["task_id"]
    if not is_task_id(task_id):
        raise _unknown()
    return task_id


def _unknown() -> NotFound:
    return NotFound("there is no such task, or its record has expired")


def _check(outcome: Next | WrongState | NothingOpen, change: str) -> None:
    match outcome:
        case WrongState(status):
            raise Conflict(f"a task that is {STATE_OF[status]} cannot be {change}")
        case NothingOpen():
            raise _unknown()


def _view(record: TaskRecord) -> TaskView:
    policy = policy_of(record.policy)
    log = _log(record)
    return TaskView(
        task_id=record.task_id,
        status=record.state,
        result=_result(record, policy, log),
        attempts=record.attempts,
        created_at=rfc3339(record.created_ms),
        updated_at=rfc3339(record.updated_ms),
        instance=policy.instance,
        phone=policy.phone,
        eta=None if record.eta_ms is None else rfc3339(record.eta_ms),
        next_attempt_at=None if record.next_attempt_ms is None else rfc3339(record.next_attempt_ms),
        delivery=record.receipt,
        log=log,
    )


def _result(record: TaskRecord, policy: TaskPolicy, log: list[Attempt]) -> Raw:
    """What was stored; a task that stopped its nodes failed without anybody to say so."""
    if record.result:
        return Raw(record.result)
    if record.state != "FAILURE":
        return _NOTHING
    error = (log[-1].error if log else None) or "its attempts stopped nodes"
    return Raw(_encode(Failure(success=False, phone=policy.phone, error=error, uncertain=True)))


def _log(record: TaskRecord) -> list[Attempt]:
    attempts = []
    for number, line in enumerate(record.log, 1):
        if isinstance(line, bytes):
            attempts.append(_decode_attempt(line))
        elif record.state != "STARTED" or number < len(record.log):
            attempts.append(Attempt(at=rfc3339(line), latency_ms=0, error=_INTERRUPTED))
    return attempts
