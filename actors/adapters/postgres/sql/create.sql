-- Make an inventory and its event. $1 event_id, $2 cliente, $3 fecha_caducidad (or null). Gives: id.
-- A second use of the event id fails as a whole (unique violation).
WITH made AS (
    INSERT INTO inventario (cliente, fecha_caducidad) VALUES ($2, $3)
    RETURNING id, cliente, fecha_caducidad
)
INSERT INTO eventos (event_id, type, inventario_id, data)
SELECT $1, 'InventarioCreado', id, to_jsonb(made) FROM made
RETURNING inventario_id AS id
