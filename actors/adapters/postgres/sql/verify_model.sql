-- Where the projection differs from the model. $1 at most how many differences.
-- Inventories with events that it has not applied yet are left out. Gives: inventario_id, field, projection, expected.
WITH pending AS MATERIALIZED (
    SELECT inventario_id FROM eventos WHERE seq > (SELECT seq FROM proyeccion)
    UNION
    SELECT inventario_id FROM eventos WHERE seq IS NULL
), should AS (
    SELECT id AS inventario_id, cliente, fecha_caducidad,
           coalesce((SELECT sum(cantidad) FROM lineas_inventario AS line WHERE line.inventario_id = inventario.id), 0)
           AS total_items
    FROM inventario WHERE id NOT IN (SELECT inventario_id FROM pending)
), held AS (
    SELECT * FROM inventario_resumen WHERE inventario_id NOT IN (SELECT inventario_id FROM pending)
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
