"""The actors: each owns one thing, decides with pure code from `core`, and acts through `ports`."""
