-- Where the projection differs from its events up to its own number. $1 at most how many differences.
-- Gives: inventario_id, field, projection, expected.
WITH should AS (
    SELECT inventario_id,
           max(data ->> 'cliente') FILTER (WHERE type = 'InventarioCreado') AS cliente,
           coalesce(sum((data ->> 'cantidad')::bigint) FILTER (WHERE type = 'LineaAgregada'), 0)::bigint AS total_items,
           max((data ->> 'fecha_caducidad')::date) FILTER (WHERE type = 'InventarioCreado') AS fecha_caducidad
    FROM eventos WHERE seq <= (SELECT seq FROM proyeccion)
    GROUP BY inventario_id
    HAVING NOT bool_or(type = 'InventarioEliminado')
), held AS (
    SELECT * FROM inventario_resumen
)
SELECT coalesce(held.inventario_id, should.inventario_id) AS inventario_id, each.field, each.projection, each.expected
FROM held FULL JOIN should ON held.inventario_id = should.inventario_id
CROSS JOIN LATERAL (VALUES
    ('row', CASE WHEN held.inventario_id IS NOT NULL THEN 'there' END,
            CASE WHEN should.inventario_id IS NOT NULL THEN 'there' END),
    ('cliente', held.cliente, should.cliente),
    ('total_items', held.total_items::text, should.total_items::text),
    ('fecha_caducidad', held.fecha_caducidad::text, should.fecha_caducidad::text)
) AS each (field, projection, expected)
WHERE each.projection IS DISTINCT FROM each.expected
  AND (each.field = 'row' OR (held.inventario_id IS NOT NULL AND should.inventario_id IS NOT NULL))
ORDER BY 1 LIMIT $1
