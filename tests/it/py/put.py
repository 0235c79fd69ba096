"""Puts records with an unmodified boto3 and checks every answer.

  put.py sizes STREAM EXPECTED      0 B, 1 B, the largest, one byte over: alone and within a batch
  put.py bytes STREAM EXPECTED      every byte value, batches of 500
  put.py answers STREAM             what Describe, List and errors look like to a client

The bytes that must arrive are written to the file EXPECTED.
"""

import random
import sys

import boto3
from botocore.exceptions import ClientError

# No retries: each answer is looked at once.
firehose = boto3.client("firehose", config=boto3.session.Config(retries={"total_max_attempts": 1}))
LARGEST = 1_024_000


def put(stream, data):
    answer = firehose.put_record(DeliveryStreamName=stream, Record={"Data": data})
    assert answer["RecordId"] and answer["Encrypted"] is False, answer
    return answer["RecordId"]


def put_batch(stream, records):
    answer = firehose.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": data} for data in records])
    assert answer["FailedPutCount"] == 0 and answer["Encrypted"] is False, answer
    ids = [entry["RecordId"] for entry in answer["RequestResponses"]]
    assert len(ids) == len(records) and len(set(ids)) == len(ids), ids
    return ids


def refused(code, call):
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        return error.response["Error"]["Message"]
    raise AssertionError(f"not refused with {code}")


def sizes(stream, expected):
    largest = random.Random(1).randbytes(LARGEST)
    over = largest + b"!"
    put(stream, b"")
    put(stream, b"a")
    put(stream, largest)
    message = refused("ValidationException", lambda: put(stream, over))
    assert "at 'record.data' failed to satisfy constraint: Member must have length less than or equal to 1024000" in message, message
    message = refused("ValidationException", lambda: put_batch(stream, [b"never", over, b"never"]))
    assert "at 'records.2.member.data' failed to satisfy constraint" in message, message
    refused("ValidationException", lambda: put_batch(stream, [b"never"] * 501))
    # Five of 1,000 KiB are over 4 MiB together; each alone is fine.
    try:
        put_batch(stream, [largest] * 5)
        raise AssertionError("more than 4 MiB were taken")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 413), error.response
    put_batch(stream, [b"", b"b", b"", largest, b"c"])
    with open(expected, "wb") as file:
        file.write(b"a" + largest + b"b" + largest + b"c")


def bytes_(stream, expected):
    generator = random.Random(2)
    everything = bytes(range(256))
    records = [everything, everything[::-1], "žluťoučký kůň 🐴".encode(), b"\r\n\0\x1f\x8b", b"\\u0000\"}"]
    records += [bytes([value]) for value in range(256)]
    ids = [put(stream, records[0])] + put_batch(stream, records[1:])
    for _ in range(5):
        batch = [generator.randbytes(generator.randrange(1, 700)) for _ in range(500)]
        ids += put_batch(stream, batch)
        records += batch
    assert len(set(ids)) == len(records)
    with open(expected, "wb") as file:
        file.write(b"".join(records))


def answers(stream):
    described = firehose.describe_delivery_stream(DeliveryStreamName=stream)["DeliveryStreamDescription"]
    assert described["DeliveryStreamName"] == stream, described
    assert described["DeliveryStreamStatus"] == "ACTIVE", described
    assert described["DeliveryStreamType"] == "DirectPut", described
    assert described["DeliveryStreamARN"].endswith(f":deliverystream/{stream}"), described
    assert described["VersionId"] == "1" and described["HasMoreDestinations"] is False, described
    assert described["Destinations"][0]["DestinationId"] == "destinationId-000000000001", described
    listed = firehose.list_delivery_streams()
    assert listed["DeliveryStreamNames"] == [stream] and listed["HasMoreDeliveryStreams"] is False, listed
    message = refused("ResourceNotFoundException", lambda: put("absent", b"x"))
    assert message == "Firehose absent under account 000000000000 not found.", message
    refused("ResourceNotFoundException", lambda: firehose.describe_delivery_stream(DeliveryStreamName="absent"))
    refused("ValidationException", lambda: put("not a name!", b"x"))
    refused("InvalidArgumentException", lambda: firehose.delete_delivery_stream(DeliveryStreamName=stream))


{"sizes": sizes, "bytes": bytes_, "answers": answers}[sys.argv[1]](*sys.argv[2:])
