"""Devices and workers: strategies, each process's task, joining, communication, launching on one machine."""
