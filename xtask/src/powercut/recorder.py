"""A disk in memory that writes down, for the replay in Rust, what it was told to do and when: an nbdkit plugin.

Each entry of the log is little-endian: kind u8 (1 write, 2 flush), nanoseconds since 1970 u64, offset u64, length u32, and
the bytes of a write. What was written before a flush is durable when the flush is answered.
"""

import io
import struct
import time

import nbdkit

API_VERSION = 2
settings = {}
disk = bytearray()
log = None


def config(key, value):
    settings[key] = value


def get_ready():
    global disk, log
    disk = bytearray(int(settings["bytes"]))
    log = io.open(settings["log"], "wb", buffering=1 << 20)


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def get_size(handle):
    return len(disk)


def can_flush(handle):
    return True


def can_fua(handle):
    return nbdkit.FUA_EMULATE


def note(kind, offset, data):
    log.write(struct.pack("<BQQI", kind, time.time_ns(), offset, len(data)))
    log.write(data)


def pread(handle, buffer, offset, flags):
    buffer[:] = disk[offset : offset + len(buffer)]


def pwrite(handle, buffer, offset, flags):
    disk[offset : offset + len(buffer)] = buffer
    note(1, offset, buffer)


def flush(handle, flags):
    note(2, 0, b"")
    log.flush()


def close(handle):
    log.flush()


def connect(readonly):
    return 1


# nbdkit asks for this name, which the interpreter's own function has as well.
globals()["open"] = connect
