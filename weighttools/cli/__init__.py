"""The command line. Commands parse, call `weighttools.api`, and print; they decide nothing."""
