"""Migrate: bring the database whose URL is on standard input to the newest revision.

Called by `actors/adapters/postgres/schema.py`, which holds the lock. The last line on standard error is the reason
when it fails; no line holds the URL.
"""

from __future__ import annotations

import sys

from alembic import command
from sqlalchemy.exc import SQLAlchemyError

from actors.adapters.postgres.migrations.setup import configuration


def main() -> None:
    """Upgrade, and say in one line why not."""
    try:
        command.upgrade(configuration(sys.stdin.read().strip()), "head")
    except SQLAlchemyError as error:
        sys.exit(str(getattr(error, "orig", None) or error).splitlines()[0])
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
