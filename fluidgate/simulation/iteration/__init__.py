"""The iteration-level model: what a real engine does, iteration by iteration, in closed form between events."""
