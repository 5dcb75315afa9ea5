"""The HTTP side of the gateway: what clients send, what they get, and how each of their requests is handled."""
