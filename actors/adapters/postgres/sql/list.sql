-- A page of the projection, newest expiry first, those without one last. $1 limit, $2 offset.
SELECT inventario_id, cliente, total_items, fecha_caducidad FROM inventario_resumen
ORDER BY fecha_caducidad DESC NULLS LAST, inventario_id DESC LIMIT $1 OFFSET $2
