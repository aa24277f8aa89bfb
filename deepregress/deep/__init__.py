"""What networks bring to a fitted model: ensembles, uncertainty, selected inputs."""
