"""Decodes the Huffman code of HPACK (RFC 7541 §5.2 and appendix B).

The code is canonical: the lengths of its 257 codes determine it. A decoder steps through the code's
tree by four bits at a time; as the shortest code has five, a step yields one octet at most.

Decides which octets a string has. Must not know header fields.
"""

from typing import Final

_EOS: Final = 256
_NOTHING: Final = -1  # the step yields no octet
_REFUSED: Final = -2  # the step reaches EOS, which no string may have

# The length of each code in bits, as a digit to the base 36: for the octets 0 to 255, and EOS.
_LENGTHS: Final = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca"
    "d67777777777777777777777878djde6f56565666577666567655677777fbeds"
    "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn"
    "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq"
    "u"
)


class HuffmanError(ValueError):
    """A string that is not in the code."""


Step = tuple[int, int]  # the next state; the octet that the step yields, or one of the above


def _tree() -> list[list[int]]:
    """The inner nodes of the code's tree; a child is a node, or ~octet for a leaf."""
    nodes = [[0, 0]]
    lengths = [int(digit, 36) for digit in _LENGTHS]
    code = 0
    bits = 0
    for symbol in sorted(range(len(lengths)), key=lengths.__getitem__):
        code <<= lengths[symbol] - bits
        bits = lengths[symbol]
        node = 0
        for shift in range(bits - 1, 0, -1):
            side = code >> shift & 1
            if not nodes[node][side]:
                nodes.append([0, 0])
                nodes[node][side] = len(nodes) - 1
            node = nodes[node][side]
        nodes[node][code & 1] = ~symbol
        code += 1
    return nodes


def _steps(nodes: list[list[int]]) -> list[list[Step]]:
    """For each node, the sixteen steps of four bits."""
    steps = []
    for start in range(len(nodes)):
        row = []
        for bits in range(16):
            node, octet = start, _NOTHING
            for shift in (3, 2, 1, 0):
                node = nodes[node][bits >> shift & 1]
                if node < 0:
                    octet = _REFUSED if ~node == _EOS else ~node
                    node = 0
            row.append((node, octet))
        steps.append(row)
    return steps


def _endings(nodes: list[list[int]]) -> frozenset[int]:
    """The nodes at which a string may end: after no more than seven bits of EOS, all ones."""
    node, found = 0, [0]
    for _ in range(7):
        node = nodes[node][1]
        found.append(node)
    return frozenset(found)


_NODES: Final = _tree()
_STEPS: Final = _steps(_NODES)
_ENDINGS: Final = _endings(_NODES)


def decode(data: bytes) -> bytes:
    """The string that `data` encodes.

    Raises:
        HuffmanError: EOS, or a padding that is too long or not all ones.
    """
    out = bytearray()
    steps = _STEPS
    append = out.append
    state = 0
    for octet in data:
        state, found = steps[state][octet >> 4]
        if found >= 0:
            append(found)
        elif found == _REFUSED:
            raise HuffmanError
        state, found = steps[state][octet & 15]
        if found >= 0:
            append(found)
        elif found == _REFUSED:
            raise HuffmanError
    if state not in _ENDINGS:
        raise HuffmanError
    return bytes(out)
