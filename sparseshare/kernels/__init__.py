"""Compiled loops: plain arrays in, plain arrays out, one room a device."""
