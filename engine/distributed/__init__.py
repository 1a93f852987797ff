"""Devices and workers: the strategy, who is who, how workers meet and agree, launching them on one machine."""
