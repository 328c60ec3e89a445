-- Where the projection is. Gives: epoch, seq, numbered (the last number there is).
SELECT proyeccion.epoch, proyeccion.seq, relevo.seq AS numbered FROM proyeccion, relevo
