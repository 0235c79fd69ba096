"""gunzip.py FROM TO: decompresses one gzip member with zlib and insists that nothing is left over."""

import sys
import zlib

with open(sys.argv[1], "rb") as source:
    packed = source.read()
member = zlib.decompressobj(31)
plain = member.decompress(packed) + member.flush()
assert member.eof, "the member does not end"
assert member.unused_data == b"", f"{len(member.unused_data)} bytes behind the first member"
with open(sys.argv[2], "wb") as target:
    target.write(plain)
