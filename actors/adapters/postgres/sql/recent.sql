-- Numbered events up to a number that were written lately, in order. $1 up to which number, $2 how many of the last ones
-- are looked at, $3 within how many seconds, by the database's clock. Gives: seq, event_id, type, data, at.
SELECT seq, event_id, type, data::text AS data, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at
FROM eventos
WHERE seq > $1::bigint - $2::bigint AND seq <= $1::bigint
    AND at > clock_timestamp() - make_interval(secs => $3::double precision)
ORDER BY seq
