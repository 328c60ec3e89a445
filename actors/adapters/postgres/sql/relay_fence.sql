-- Hold the relay's row. $1 epoch. Gives: seq; no row when a higher epoch has been seen.
-- A statement of its own, before number.sql: that one needs a snapshot from after the wait for this row.
UPDATE relevo SET epoch = $1 WHERE epoch <= $1 RETURNING seq
