-- What the command of an event id wrote. $1 event_id. Gives: type, inventario_id, data.
SELECT type, inventario_id, data::text AS data FROM eventos WHERE event_id = $1
