-- Remove an inventory with its lines, and write the event. $1 event_id, $2 inventario_id. Gives: id; no row when there
-- is no such inventory.
-- Locked first, as in add_line.sql: DELETE alone takes its transaction number before it waits for the row.
WITH locked AS MATERIALIZED (
    SELECT id FROM inventario WHERE id = $2 FOR UPDATE
), gone AS (
    DELETE FROM inventario USING locked WHERE inventario.id = locked.id RETURNING inventario.id
)
INSERT INTO eventos (event_id, type, inventario_id, data)
SELECT $1, 'InventarioEliminado', id, jsonb_build_object('id', id) FROM gone
RETURNING inventario_id AS id
