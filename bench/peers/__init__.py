"""What people use for this today, on the same machine in the same run."""
