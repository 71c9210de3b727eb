"""What a user waits for: whole workloads, through the mount, the socket or the engine alone."""
