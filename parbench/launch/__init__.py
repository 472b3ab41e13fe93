"""A cell into fresh processes, and their records into a trial. A launcher only starts the worker on its devices."""
