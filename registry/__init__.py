"""The OCI data plane: HTTP and its rules, nothing else."""
