"""The command line. Commands parse, call a verb of `weighttools.verbs`, and print; they decide nothing."""
