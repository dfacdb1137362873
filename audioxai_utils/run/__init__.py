"""How a study is run: command line, graph, one notebook, SLURM."""
