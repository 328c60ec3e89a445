-- Let events go. $1 epoch, $2 the last number that is sent. Gives: sent; no row when fenced or not numbered.
UPDATE relevo SET epoch = $1, sent = greatest(sent, $2) WHERE epoch <= $1 AND $2 <= seq RETURNING sent
