-- Hold readers and the projector for the swap: apply.sql locks the table before it looks at its watermark, so whoever
-- waits here looks at the new one. Not longer than a second: behind a waiting lock all readers wait.
SET LOCAL lock_timeout = '1s';
LOCK TABLE inventario_resumen IN ACCESS EXCLUSIVE MODE;
