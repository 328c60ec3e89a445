"""Parts joined to the real thing: a real store engine, real sockets, real processes."""
