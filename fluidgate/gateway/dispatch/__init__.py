"""Which request starts next, and on which engine; and the plan that this follows. Nothing here touches the network."""
