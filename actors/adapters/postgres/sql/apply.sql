-- Move the projection from one number to another. $1 epoch, $2 from, $3 to; what the events between change, as arrays:
-- $4 to $7 new inventories (id, cliente, total, fecha_caducidad), $8 and $9 grown ones (id, quantity), $10 removed ones.
-- Gives: seq; no row, and no change, when the epoch is stale, the projection is elsewhere or $3 was not given yet.
-- One statement: the row of the watermark is the fence, and the three sets hold different inventories.
WITH fence AS (
    UPDATE proyeccion SET epoch = $1, seq = $3 WHERE epoch <= $1 AND seq = $2 AND $3 <= (SELECT relevo.seq FROM relevo)
    RETURNING seq
), made AS (
    INSERT INTO inventario_resumen (inventario_id, cliente, total_items, fecha_caducidad)
    SELECT * FROM unnest($4::bigint[], $5::text[], $6::bigint[], $7::date[]) WHERE EXISTS (SELECT FROM fence)
    ON CONFLICT (inventario_id) DO UPDATE
    SET cliente = excluded.cliente, total_items = excluded.total_items, fecha_caducidad = excluded.fecha_caducidad
), grown AS (
    UPDATE inventario_resumen AS known SET total_items = known.total_items + added.quantity
    FROM unnest($8::bigint[], $9::bigint[]) AS added (id, quantity)
    WHERE known.inventario_id = added.id AND EXISTS (SELECT FROM fence)
), gone AS (
    DELETE FROM inventario_resumen WHERE inventario_id = ANY ($10::bigint[]) AND EXISTS (SELECT FROM fence)
)
SELECT seq FROM fence
