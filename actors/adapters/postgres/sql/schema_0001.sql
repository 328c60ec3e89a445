-- Tables of the inventory: the model, the projection, the events, and one row each for the relay and the projection.

CREATE TABLE inventario (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cliente text NOT NULL CHECK (char_length(cliente) BETWEEN 1 AND 200),
    fecha_caducidad date
);

CREATE TABLE lineas_inventario (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inventario_id bigint NOT NULL REFERENCES inventario (id) ON DELETE CASCADE,
    producto text NOT NULL CHECK (char_length(producto) BETWEEN 1 AND 200),
    cantidad integer NOT NULL CHECK (cantidad > 0)
);
CREATE INDEX lineas_inventario_inventario_id ON lineas_inventario (inventario_id);

-- No reference to inventario: the projection lags behind it.
CREATE TABLE inventario_resumen (
    inventario_id bigint NOT NULL,
    cliente text NOT NULL,
    total_items bigint NOT NULL,
    fecha_caducidad date,
    CONSTRAINT inventario_resumen_pkey PRIMARY KEY (inventario_id)
);
CREATE INDEX inventario_resumen_fecha_caducidad
    ON inventario_resumen (fecha_caducidad DESC NULLS LAST, inventario_id DESC);

-- The log of everything that happened, and until it is numbered and sent the outbox. Kept for rebuilds.
-- xid is the writing transaction; seq is given by the relay once no earlier one can still come.
CREATE TABLE eventos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL,
    type text NOT NULL CHECK (type IN ('InventarioCreado', 'LineaAgregada', 'InventarioEliminado')),
    inventario_id bigint NOT NULL,
    data jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint,
    CONSTRAINT eventos_event_id_key UNIQUE (event_id),
    CONSTRAINT eventos_seq_key UNIQUE (seq)
);
CREATE INDEX eventos_unnumbered ON eventos (xid, id) WHERE seq IS NULL;

CREATE TABLE relevo (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    sent bigint NOT NULL DEFAULT 0,
    CHECK (sent <= seq)
);
INSERT INTO relevo DEFAULT VALUES;

CREATE TABLE proyeccion (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    version integer NOT NULL DEFAULT 1,
    rebuilt_at timestamptz
);
INSERT INTO proyeccion DEFAULT VALUES;
