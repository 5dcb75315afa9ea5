"""Which request starts next, and on which engine: bookkeeping of the gateway's events, without network or clock."""
