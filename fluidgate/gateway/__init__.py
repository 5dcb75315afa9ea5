"""The live controller: gate-and-route in front of real engines."""
