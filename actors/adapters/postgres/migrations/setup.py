"""Setup: Alembic's configuration, without a file of its own."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config

FOLDER = Path(__file__).parent


def configuration(url: str) -> Config:
    """Alembic's configuration for one database; empty for looking at the versions only."""
    config = Config(attributes={"url": url})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config
