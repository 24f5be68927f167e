"""What runs in the stand-ins' image: the standard library, bpftrace and nothing else."""
