"""The MobileNets."""
