-- Bring a slice of the events into the new projection. $1 after which number, $2 up to which.
-- Equal to applying them one by one: an inventory is made once, removed once, and grows by sums in between.
WITH slice AS MATERIALIZED (
    SELECT inventario_id,
           bool_or(type = 'InventarioCreado') AS made,
           bool_or(type = 'InventarioEliminado') AS gone,
           max(data ->> 'cliente') FILTER (WHERE type = 'InventarioCreado') AS cliente,
           max((data ->> 'fecha_caducidad')::date) FILTER (WHERE type = 'InventarioCreado') AS fecha_caducidad,
           coalesce(sum((data ->> 'cantidad')::bigint) FILTER (WHERE type = 'LineaAgregada'), 0)::bigint AS added
    FROM eventos WHERE seq > $1 AND seq <= $2
    GROUP BY inventario_id
), made AS (
    INSERT INTO inventario_resumen_nuevo (inventario_id, cliente, total_items, fecha_caducidad)
    SELECT inventario_id, cliente, added, fecha_caducidad FROM slice WHERE made AND NOT gone
), grown AS (
    UPDATE inventario_resumen_nuevo AS known SET total_items = known.total_items + slice.added
    FROM slice WHERE known.inventario_id = slice.inventario_id AND NOT slice.made AND NOT slice.gone AND slice.added > 0
)
DELETE FROM inventario_resumen_nuevo AS known USING slice
WHERE known.inventario_id = slice.inventario_id AND slice.gone AND NOT slice.made
