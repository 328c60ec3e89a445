"""The inventory's tables as SQLAlchemy maps them: the same ones that the node works on."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Tables(DeclarativeBase):
    """All of them."""


class Inventario(Tables):
    """An inventory of the write model."""

    __tablename__ = "inventario"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    cliente: Mapped[str]
    fecha_caducidad: Mapped[date | None]


class Linea(Tables):
    """A line of one."""

    __tablename__ = "lineas_inventario"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    inventario_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("inventario.id", ondelete="CASCADE"))
    producto: Mapped[str]
    cantidad: Mapped[int]


class Evento(Tables):
    """An event, a row of the outbox until somebody has sent it."""

    __tablename__ = "eventos"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[str]
    type: Mapped[str]
    inventario_id: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Resumen(Tables):
    """An inventory of the projection."""

    __tablename__ = "inventario_resumen"
    inventario_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    cliente: Mapped[str]
    total_items: Mapped[int] = mapped_column(BigInteger)
    fecha_caducidad: Mapped[date | None]
