-- An empty projection beside the one that is read. What a rebuild that died left behind goes.
DROP TABLE IF EXISTS inventario_resumen_nuevo;
CREATE TABLE inventario_resumen_nuevo (LIKE inventario_resumen INCLUDING DEFAULTS);
ALTER TABLE inventario_resumen_nuevo ADD CONSTRAINT inventario_resumen_nuevo_pkey PRIMARY KEY (inventario_id);
CREATE INDEX inventario_resumen_nuevo_fecha_caducidad
    ON inventario_resumen_nuevo (fecha_caducidad DESC NULLS LAST, inventario_id DESC);
