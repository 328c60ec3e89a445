-- The new projection takes the place of the old one, under its names.
DROP TABLE inventario_resumen;
ALTER TABLE inventario_resumen_nuevo RENAME TO inventario_resumen;
ALTER TABLE inventario_resumen RENAME CONSTRAINT inventario_resumen_nuevo_pkey TO inventario_resumen_pkey;
ALTER INDEX inventario_resumen_nuevo_fecha_caducidad RENAME TO inventario_resumen_fecha_caducidad;
