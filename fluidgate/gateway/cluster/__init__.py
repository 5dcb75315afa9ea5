"""The engines behind the gateway: where they come from, who of them is up, and whose fault a failure is."""
