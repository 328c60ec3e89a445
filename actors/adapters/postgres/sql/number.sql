-- Number the events that nothing can precede any more. $1 last number given, $2 at most how many. Gives: seq.
-- To be run in the transaction that holds the relay's row (relay_fence.sql), isolation READ COMMITTED.
-- One statement, hence one snapshot: xmin is the oldest transaction that still runs; all before it are over, and those
-- that committed are seen. A number from beyond xmax was not given here: the database was restored from another one's
-- dump, and such events are older than all of ours.
WITH ready AS MATERIALIZED (
    SELECT id, xid, xid >= pg_snapshot_xmax(pg_current_snapshot()) AS restored
    FROM eventos
    WHERE seq IS NULL
      AND (xid < pg_snapshot_xmin(pg_current_snapshot()) OR xid >= pg_snapshot_xmax(pg_current_snapshot()))
    ORDER BY restored DESC, xid, id
    LIMIT $2
), given AS (
    UPDATE eventos SET seq = $1 + placed.place
    FROM (SELECT id, row_number() OVER (ORDER BY restored DESC, xid, id) AS place FROM ready) AS placed
    WHERE eventos.id = placed.id
    RETURNING eventos.seq
)
UPDATE relevo SET seq = $1 + (SELECT count(*) FROM given) RETURNING seq
