"""The decisions of a policy: what they look at, what they look up, and the functions that take them.

Both simulators and the gateway call these same functions. They are compiled, so they are imported from their own
modules, late.
"""
