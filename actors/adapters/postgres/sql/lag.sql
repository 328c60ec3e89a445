-- What the projection lacks. Gives: events, seconds (age of the oldest).
SELECT count(*) AS events, coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS seconds
FROM (
    SELECT at FROM eventos WHERE seq > (SELECT seq FROM proyeccion)
    UNION ALL
    SELECT at FROM eventos WHERE seq IS NULL
) AS lacking
