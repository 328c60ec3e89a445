-- Hold readers and the projector for the swap. The table comes first, as for the projector, or both would wait for ever.
SET LOCAL lock_timeout = '1s';
LOCK TABLE inventario_resumen IN ACCESS EXCLUSIVE MODE;
SELECT FROM proyeccion FOR UPDATE;
