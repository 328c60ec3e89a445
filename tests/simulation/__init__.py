"""The logic at speed: a whole cluster of real actors in one virtual time, over a simulated store and network."""
