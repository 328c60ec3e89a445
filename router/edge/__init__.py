"""What every route shares: errors, bodies, OpenAPI, idempotency, paging, metrics, logs. Knows no resource."""
