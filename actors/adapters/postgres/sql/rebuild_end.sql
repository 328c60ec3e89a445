-- Where the new projection is. $1 the number, $2 the version of the rules that made it.
UPDATE proyeccion SET seq = $1, version = $2, rebuilt_at = clock_timestamp()
