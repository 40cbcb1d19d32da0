"""The words of the registry: pure values, no I/O, no clock, nothing from outside the standard library."""
