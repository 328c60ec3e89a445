-- Numbered events in order. $1 from which number, $2 at most how many. Gives: seq, event_id, type, data, at.
SELECT seq, event_id, type, data::text AS data, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at
FROM eventos WHERE seq >= $1 ORDER BY seq LIMIT $2
