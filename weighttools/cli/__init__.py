"""The command line. Commands parse, call `weighttools.verbs.api`, and print; they decide nothing."""
