-- An inventory of the projection with its lines. $1 inventario_id. Gives one row for each line, at least one; no row
-- when the projection does not have it.
SELECT known.inventario_id, known.cliente, known.total_items, known.fecha_caducidad,
       line.id, line.producto, line.cantidad
FROM inventario_resumen AS known
LEFT JOIN lineas_inventario AS line ON line.inventario_id = known.inventario_id
WHERE known.inventario_id = $1
ORDER BY line.id
