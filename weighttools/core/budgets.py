"""How much work and memory an untrusted file may cost, each bound with its reason; readers and checks take them here.

The rule they serve: a file under 1 MB costs at most 2 s of processor time and 300 MB, whatever it declares.
"""

from __future__ import annotations

MAX_FINDINGS_OF_A_KIND = 10
"""Findings of one kind that an index or an archive gives before the rest are one line: it may name 100,000 shards that
are not there, and who reads the report learns nothing from the eleventh."""

MAX_COMPANION_BYTES = 100_000_000
"""The largest file that is copied along with weights: a tokenizer takes tens of megabytes, and what is larger is data
that happens to lie there."""

EXPRESSION_LENGTH = 1000
"""Characters of a regular expression in a configuration: such as name layers have a few dozen."""
EXPRESSION_NODES = 10_000
"""States of one, its repeats written out: ``\\d{1,3}`` takes three."""
EXPRESSION_STEPS = 3_000_000
"""States visited by all matches of a file's expressions: about a second. 600 modules' names take 200,000 of one."""
EXPRESSION_MAKING = 1_000
"""Such steps that the making of one counts as, or a fifth of a millisecond: 3,000 expressions, where real tables have a
few and list plain names otherwise, which cost nothing of the kind."""
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
MOST_TEMPLATE_CHARACTERS = 1 << 18
"""Characters of a chat template that a check looks into: the longest have 20,000, and so many cost a second."""
MOST_VALUES = 1_000
"""Small values beside tensors (epoch, rate) that a map keeps: a checkpoint has tens, a pickled vocabulary a million."""
MOST_VALUE_TEXT = 200
"""Characters of a text that is such a value: a line that a person reads."""
MOST_KEY_PARTS = 64
"""Parts of a tuple that is a key: tuples that hold one another would unfold to 2**depth of them."""

# -- archives ---------------------------------------------------------------------------------------------------------

INFLATED_FREE, INFLATED_TIMES = 128 << 20, 64
"""What the deflated members of an archive may inflate to, each and together: so many bytes, and so many times as many
as are stored. Weights deflate to a half, pruned ones to a tenth; deflate's own limit is 1032 times. An inflated member
is held whole, so a file of 1 MB takes 192 MB, a second of inflating, and no more."""

INFLATED_SMALL = 1 << 16
"""Members that inflate to no more are read even in an archive whose members together claim too much: a file of 1 MB has
room for 8,000 of them, half a gigabyte."""

SIDECAR_BYTES = 16_000_000
"""The most that the deflated metadata of an NPZ archive may inflate to: they are read whenever it is opened."""


def inflated(n_stored: int) -> int:
    """Return what `n_stored` bytes may inflate to."""
    return INFLATED_FREE + INFLATED_TIMES * n_stored


# -- training data ----------------------------------------------------------------------------------------------------

_SAMPLES_FREE, _SAMPLES_TIMES = 300_000, 4
_DATA_FREE, _DATA_TIMES = 1 << 24, 32


def samples(n_file: int) -> int:
    """Return how many samples a deflated data file of `n_file` bytes may have.

    Each is worked on by a model, at 5 µs for the smallest; a label that tells anything takes a bit.
    """
    return _SAMPLES_FREE + _SAMPLES_TIMES * n_file


def data_values(n_file: int) -> int:
    """Return how many numbers a deflated data file of `n_file` bytes may hold: each is a float32 in memory.

    Digits deflate to a fifth of a byte a pixel, one-hot columns to a twentieth.
    """
    return _DATA_FREE + _DATA_TIMES * n_file


# -- pickles ----------------------------------------------------------------------------------------------------------

_PICKLE_FREE, _PICKLE_TIMES = 8 << 20, 16
_OPCODES_FREE = 500_000


def inflated_pickle(n_file: int) -> int:
    """Return how long a deflated pickle may be once inflated, in a file of `n_file` bytes.

    Its text may take four times its bytes in memory, and its objects a hundred; a pickle of names and shapes deflates
    to a tenth, and lies beside its tensors.
    """
    return _PICKLE_FREE + _PICKLE_TIMES * n_file


def opcodes(n_file: int) -> int:
    """Return how many opcodes a deflated pickle may run, in a file of `n_file` bytes.

    An empty dictionary is one opcode and 120 bytes of memory: a file of 1 MB makes 180 MB of them. A stored pickle
    has no more opcodes than the file has bytes; a deflated one is allowed half a million beyond that.
    """
    return _OPCODES_FREE + n_file


def visits(n_opcodes: int) -> int:
    """Return how many values of a pickle may be walked: containers hold one another, and unfold to more than was made.

    A tensor takes some 25 opcodes and is one value, a number of an optimizer's state takes three, so what is held under
    two names is below; a million values take over a second.
    """
    return n_opcodes + 100_000


def letters(n_bytes: int) -> int:
    """Return how long the names of a pickle's tensors may be together: paths repeat what they lie under."""
    return 64 * n_bytes + (1 << 20)


PICKLE_GLOBALS = 10_000
"""Different names that a pickle may import: checkpoints have tens, and a file of 300 kB has room for 120,000."""

INTEGER_BYTES = 512
"""How long an integer may be: generators have states of 16 bytes; Python spells none beyond 1785 bytes as text."""

STACK_OBJECTS = 8_000_000
"""Objects on a pickle's stack at once: the largest dictionaries are set in one go, two objects an entry."""

# -- views ------------------------------------------------------------------------------------------------------------

VIEWS_FREE, VIEWS_TIMES = 1 << 25, 4
"""What the tensors of a file may take together beyond what their storages hold: so many bytes, and so many times the
storages. Views of one storage overlap twice at most in what training writes (a flat parameter and its parts); expanded
tensors repeat one element by a stride of 0, and are read at some 100 MB/s."""


def views(n_held: int) -> int:
    """Return how many bytes views of storages of `n_held` bytes may show, and inflate, in all."""
    return VIEWS_FREE + VIEWS_TIMES * n_held


# -- GGUF -------------------------------------------------------------------------------------------------------------

ALIGNMENT = 1 << 16
"""The most that GGUF's alignment is believed: files have 32, a page of memory is 4096 or 65,536, and every tensor is
padded to it when a file is written."""

PADDING_FREE = 1 << 26
"""Bytes of padding that a GGUF file may be written with beyond as many as its tensors take."""

# -- distributed checkpoints ------------------------------------------------------------------------------------------

METADATA_BYTES = 2_000_000_000
"""How long the metadata of a distributed checkpoint may be."""

# -- HDF5 -------------------------------------------------------------------------------------------------------------

UNWRITTEN_BYTES = 1 << 26
"""Bytes that the data sets of a file may claim together beyond what their filters could make of those they store."""

CHUNK_FREE, CHUNK_TIMES = 4 << 20, 8
"""Bytes that a chunk of a data set may have, or times that it may be larger than the data set: h5py's own chunks are of
1 MiB at most, and a data set that is to grow may have one. What lies beyond the data set is inflated in vain."""

# -- texts ------------------------------------------------------------------------------------------------------------

JSON_BYTES = 200_000_000
"""How long an index may be: that of a million tensors is half as long."""

CONFIG_BYTES = 8_000_000
"""How long config.json and its like may be, in a Keras archive too: real ones have a few kilobytes, the longest tables
of labels one megabyte, and parsed JSON may take twenty times its bytes."""


def deflated_index(n_stored: int) -> int:
    """Return how long an index of `n_stored` deflated bytes may be: of names that are alike, a twentieth is stored."""
    return CONFIG_BYTES + 16 * n_stored


MAX_PIECE = 512
"""Characters of a token that pairs are merged into: each is split at every place, at a cost of its length squared.

The longest pieces of known vocabularies have 96 characters; a megabyte of longest ones takes half a second."""

MAX_TOKENS = 1 << 20
"""Tokens of a vocabulary that is made out as long as an embedding, whose rows a header may claim for nothing.

The largest known vocabularies have 262,144 for models that GGUF holds, and below 2^20 for any."""

# -- what a walk goes through --------------------------------------------------------------------------------------

ONNX_DEPTH = 64
"""Graphs within graphs of an ONNX model: loops in branches are a few deep."""

ONNX_TENSORS = 1_000_000
"""Tensors of an ONNX model: the largest have some ten thousand."""

ONNX_NAME = 1 << 16
"""Bytes of a name there, of which each is shown."""

ONNX_TEXT = 1 << 24
"""Bytes of a text there, such as a description."""

ONNX_PARTS = 1 << 16
"""Pieces that the values of one of its tensors come in: one, as writers pack them."""

FLAX_NAMES = 64_000_000
"""Bytes of all names of a msgpack file: its paths repeat what they lie under."""

FLAX_DEPTH = 128
"""Maps within maps there: modules are a dozen deep."""

FLAX_VALUES = 400_000
"""Values there, each some microseconds of work."""

FLAX_PLAIN = 100_000
"""Values there that are no arrays."""

GGUF_DEPTH = 16
"""Arrays within arrays of GGUF metadata: none is known that has two levels."""

GGUF_STRING = 64 << 20
"""Bytes of a text there: chat templates and licences have some thousand."""

PICKLE_LINE = 1 << 20
"""Bytes of a line of a pickle of protocol 0: names and numbers."""

PICKLE_DEPTH = 200
"""Containers within containers that are walked: modules are a dozen deep."""

PICKLE_NAME = 1000
"""Characters of a path under which a small value is kept."""

CHECKED_TEXT = 1 << 16
"""Bytes of a text of an ONNX model that a check looks at."""

CHECKED_LEVELS = 64
"""Messages within messages there that a check goes into."""

UNSTORED_BYTES = 4 << 20
"""Bytes that one HDF5 data set may claim over what deflate could make of those it stores; see `UNWRITTEN_BYTES`."""

PROTOBUF_FIELDS = 2_000_000
"""Fields walked in one file; the graphs of the largest models have some hundred thousand."""

GAPS_LOOKED_AT = 1_000_000
"""Gaps between tensors of a file that are looked at to tell padding: a GGUF file has one for each tensor."""

PADDING_LOOKED_AT = 4096
"""Bytes of a gap that is padding if they are zero: alignments are 8 to 64, and a page at the most."""

FIRST_ELEMENTS = 1 << 16
"""Elements that are decoded to show a tensor's first few: none are shown where a block or deflated member has more."""

EXPANDED_BYTES = 1 << 20
"""Characters of all texts of metadata that are parsed as JSON: training settings have some thousand."""

EXPANDED_DEPTH = 32
"""Levels of such a text: settings have three or four."""
