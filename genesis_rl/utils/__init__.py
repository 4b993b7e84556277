"""Files, processes, logs, tables, timing and command-line flags."""
