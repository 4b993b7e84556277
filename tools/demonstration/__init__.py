"""The demonstration of `make demo` and its report."""
