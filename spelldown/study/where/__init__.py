"""Where runs happen: on this machine, on a Ray cluster, under Slurm."""
