"""The arithmetic of an update: losses, optimizers, schedules, averages, loss scale, sums over replicas."""
