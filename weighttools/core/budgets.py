"""How much work and memory an untrusted file may cost, each bound with its reason; readers and checks take them here.

The rule they serve: a file under 1 MB costs at most 2 s of processor time and 300 MB, whatever it declares.
"""

MOST_VALUES = 1_000
"""Small values beside tensors (epoch, rate) that a map keeps: a checkpoint has tens, a pickled vocabulary a million."""
MOST_VALUE_TEXT = 200
"""Characters of a text that is such a value: a line that a person reads."""
MOST_KEY_PARTS = 64
"""Parts of a tuple that is a key: tuples that hold one another would unfold to 2**depth of them."""
