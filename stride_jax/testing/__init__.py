"""A kit for people who write a rule or a process: exactness, closed forms, distances of samples."""
