-- Where the relay is. Gives: epoch, seq, sent, unnumbered (whether any event waits for its number).
SELECT epoch, seq, sent, EXISTS (SELECT FROM eventos WHERE eventos.seq IS NULL) AS unnumbered FROM relevo
