-- What a comparison is about. Gives: watermark, compared (rows of the projection), pending (inventories left out).
SELECT (SELECT seq FROM proyeccion) AS watermark,
       (SELECT count(*) FROM inventario_resumen) AS compared,
       (SELECT count(*) FROM (
           SELECT inventario_id FROM eventos WHERE seq > (SELECT seq FROM proyeccion)
           UNION SELECT inventario_id FROM eventos WHERE seq IS NULL
       ) AS lacking) AS pending
