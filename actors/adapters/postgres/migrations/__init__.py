"""Migrations: Alembic's environment and its versions, which run the SQL of `../sql/schema_*.sql`.

Imported only by the process that migrates (`python -m actors.adapters.postgres.migrations`, the URL on its input).
"""
