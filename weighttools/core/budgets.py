"""How much work and memory an untrusted file may cost, each bound with its reason; readers and checks take them here.

The rule they serve: a file under 1 MB costs at most 2 s of processor time and 300 MB, whatever it declares.
"""
