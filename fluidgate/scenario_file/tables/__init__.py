"""The tables of a scenario file: each key with its type, its range and what an error says of it."""
