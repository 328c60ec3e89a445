"""The inventory on FastAPI and SQLAlchemy: two commands and two queries. Run by uvicorn, one process.

As many sessions with the database as the node has. Queries are in no transaction: SQLAlchemy's autocommit saves them
two round trips.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.bench.sqlalchemy_stack.tables import Evento, Inventario, Linea, Resumen

SESSIONS = 10
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=SESSIONS, max_overflow=0)
commands = async_sessionmaker(engine, expire_on_commit=False)
queries = async_sessionmaker(engine.execution_options(isolation_level="AUTOCOMMIT"), expire_on_commit=False)
app = FastAPI(title="inventario")


async def writing() -> AsyncIterator[AsyncSession]:
    """A session whose transaction is committed by the command."""
    async with commands() as session:
        yield session


async def reading() -> AsyncIterator[AsyncSession]:
    """A session without transactions."""
    async with queries() as session:
        yield session


Writing = Annotated[AsyncSession, Depends(writing)]
Reading = Annotated[AsyncSession, Depends(reading)]


class InventarioRequest(BaseModel):
    """What is to be made."""

    cliente: str = Field(min_length=1, max_length=200)
    fecha_caducidad: date | None = None


class InventarioResponse(InventarioRequest):
    """What was made."""

    id: int
    total_items: int = 0
    event_id: str


class LineaRequest(BaseModel):
    """What is to be added."""

    producto: str = Field(min_length=1, max_length=200)
    cantidad: int = Field(gt=0, lt=2**31)


class LineaResponse(LineaRequest):
    """What was added."""

    id: int
    inventario_id: int
    event_id: str


class ResumenResponse(BaseModel):
    """An inventory of the projection."""

    model_config = ConfigDict(from_attributes=True)
    inventario_id: int
    cliente: str
    total_items: int
    fecha_caducidad: date | None


class LineaOfDetalle(BaseModel):
    """One of its lines."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    producto: str
    cantidad: int


class DetalleResponse(ResumenResponse):
    """The same with its lines."""

    lineas: list[LineaOfDetalle]


@app.post("/inventario", status_code=201)
async def create(request: InventarioRequest, session: Writing) -> InventarioResponse:
    """Write it and its event."""
    made = Inventario(cliente=request.cliente, fecha_caducidad=request.fecha_caducidad)
    session.add(made)
    await session.flush()
    told = event("InventarioCreado", made.id, {"id": made.id, **request.model_dump(mode="json")})
    session.add(told)
    await session.commit()
    return InventarioResponse(id=made.id, event_id=told.event_id, **request.model_dump())


@app.post("/inventario/{inventario_id}/linea", status_code=201)
async def add_line(inventario_id: int, request: LineaRequest, session: Writing) -> LineaResponse:
    """Write it and its event. The inventory's row is locked, so that its events have an order."""
    if await session.scalar(select(Inventario.id).where(Inventario.id == inventario_id).with_for_update()) is None:
        raise HTTPException(404, "Inventario no encontrado")
    line = Linea(inventario_id=inventario_id, producto=request.producto, cantidad=request.cantidad)
    session.add(line)
    await session.flush()
    told = event(
        "LineaAgregada", inventario_id, {"id": line.id, "inventario_id": inventario_id, **request.model_dump()}
    )
    session.add(told)
    await session.commit()
    return LineaResponse(id=line.id, inventario_id=inventario_id, event_id=told.event_id, **request.model_dump())


@app.get("/inventario")
async def page(
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[ResumenResponse]:
    """A page of the projection, newest expiry first."""
    ordered = select(Resumen).order_by(Resumen.fecha_caducidad.desc().nulls_last(), Resumen.inventario_id.desc())
    found = await session.scalars(ordered.limit(limit).offset(offset))
    return [ResumenResponse.model_validate(row) for row in found]


@app.get("/inventario/{inventario_id}")
async def one(inventario_id: int, session: Reading) -> DetalleResponse:
    """An inventory of the projection, with its lines."""
    found = await session.get(Resumen, inventario_id)
    if found is None:
        raise HTTPException(404, "Inventario no encontrado")
    lines = await session.scalars(select(Linea).where(Linea.inventario_id == inventario_id).order_by(Linea.id))
    resumen = ResumenResponse.model_validate(found).model_dump()
    return DetalleResponse(lineas=[LineaOfDetalle.model_validate(line) for line in lines], **resumen)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Answer at all."""
    return {"status": "healthy"}


def event(kind: str, inventario_id: int, data: dict[str, Any]) -> Evento:
    """A row of the outbox."""
    return Evento(event_id=f"evt_{uuid4().hex}", type=kind, inventario_id=inventario_id, data=data)
