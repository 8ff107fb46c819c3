"""How many rows search takes a step with.

oneDNN writes a program for every shape of a product that it meets, which takes it one to two
milliseconds, as long as the product itself; and it keeps a thousand of them. Search ends with other
rows than it began with, and a beam has another number at nearly every step. So rows that are over
are held, doing nothing, up to the next of a few round numbers.
"""

FINENESS = 3  # there are 2^FINENESS round numbers between a power of two and the next


def held(rows: int) -> int:
    """The round number that is at least `rows`, and by less than an eighth above them."""
    unit = 1 << max(rows.bit_length() - 1 - FINENESS, 0)
    return -(-rows // unit) * unit
