-- The number of an event. $1 event_id. Gives: seq (null until it has one); no row when there is no such event.
SELECT seq FROM eventos WHERE event_id = $1
