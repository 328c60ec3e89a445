"""Pure decisions and single parts: tables and properties, virtual time, no store."""
