"""How much work and memory an untrusted file may cost, each bound with its reason; readers and checks take them here.

The rule they serve: a file under 1 MB costs at most 2 s of processor time and 300 MB, whatever it declares.
"""

MAX_FINDINGS_OF_A_KIND = 10
"""Findings of one code that an index gives before the rest are one line: it may name 100,000 shards that are not there,
and who reads the report learns nothing from the eleventh."""

MAX_COMPANION_BYTES = 100_000_000
"""The largest file that is copied along with weights: a tokenizer takes tens of megabytes, and what is larger is data
that happens to lie there."""

EXPRESSION_LENGTH = 1000
"""Characters of a regular expression in a configuration: such as name layers have a few dozen."""
EXPRESSION_NODES = 10_000
"""States of one, its repeats written out: ``\\d{1,3}`` takes three."""
EXPRESSION_STEPS = 3_000_000
"""States visited by all matches of a file's expressions: about a second. 600 modules' names take 200,000 of one."""
MOST_SCANNED_BYTES = 128 << 20
"""Bytes that the members of one archive may inflate to while a check looks for pickles in them."""
LEAST_SCANNED_BYTES = 1 << 20
"""Of them, what every archive has: half a second's work where each byte is an opcode."""
MOST_INFLATION = 16
"""Of them, what an archive has for each of its own bytes: names of tensors deflate to a tenth of their length."""
MOST_NESTED_ARCHIVES = 3
"""Archives within archives that a check looks into: a checkpoint is one, a zip of checkpoints two."""
MOST_SALVAGED_MEMBERS = 10_000
"""Members of a damaged archive that a check looks into."""
MOST_NAMED = 50
"""Names of one kind that findings list one by one; the rest is counted."""
MOST_TEMPLATE_CHARACTERS = 1 << 20
"""Characters of a chat template that a check looks into: the longest have 20,000."""
MOST_VALUES = 1_000
"""Small values beside tensors (epoch, rate) that a map keeps: a checkpoint has tens, a pickled vocabulary a million."""
MOST_VALUE_TEXT = 200
"""Characters of a text that is such a value: a line that a person reads."""
MOST_KEY_PARTS = 64
"""Parts of a tuple that is a key: tuples that hold one another would unfold to 2**depth of them."""
