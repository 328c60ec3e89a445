-- Add a line and its event. $1 event_id, $2 inventario_id, $3 producto, $4 cantidad. Gives: id of the line; no row when
-- there is no such inventory.
-- The row of the inventory is locked before anything is written: a transaction gets its number (xid) when it has the
-- lock, so the numbers of one inventory's events follow its history. Against DELETE the lock must be an exclusive one.
WITH locked AS MATERIALIZED (
    SELECT id FROM inventario WHERE id = $2 FOR UPDATE
), made AS (
    INSERT INTO lineas_inventario (inventario_id, producto, cantidad) SELECT id, $3, $4 FROM locked
    RETURNING id, inventario_id, producto, cantidad
), told AS (
    INSERT INTO eventos (event_id, type, inventario_id, data)
    SELECT $1, 'LineaAgregada', inventario_id, to_jsonb(made) FROM made
)
SELECT id FROM made
