"""Pure decisions: no asyncio, sockets, store, clock, randomness or logging. Time, ids and chance are arguments."""
