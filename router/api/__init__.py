"""One file per resource: each turns a request into a command for an actor and its answer into bytes."""
