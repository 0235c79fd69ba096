"""Looks into MinIO with boto3: the reader that is not the writer.

  store.py read BUCKET PREFIX FOLDER    downloads all objects below the prefix, prints what is known of them as JSON
  store.py make BUCKET                  makes a bucket
  store.py user NAME SECRET BUCKET yes|no
                                        makes a user who may write to that bucket, or may not
"""

import io
import json
import os
import sys
import urllib.request
import zipfile

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

setting = {name.removeprefix("HYDRANT_TEST_S3_"): value for name, value in os.environ.items() if name.startswith("HYDRANT_TEST_S3_")}
s3 = boto3.client(
    "s3",
    endpoint_url=setting["ENDPOINT"],
    region_name="us-east-1",
    aws_access_key_id=setting["ACCESS_KEY"],
    aws_secret_access_key=setting["SECRET_KEY"],
)


def read(bucket, prefix, folder):
    found = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            head = s3.head_object(Bucket=bucket, Key=entry["Key"])
            file = os.path.join(folder, str(len(found)))
            s3.download_file(bucket, entry["Key"], file)
            address = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": entry["Key"]})
            found.append({
                "key": entry["Key"],
                "content_type": head["ContentType"],
                "content_encoding": head.get("ContentEncoding"),
                "metadata": head["Metadata"],
                "sse": head.get("ServerSideEncryption"),
                "kms_key": head.get("SSEKMSKeyId"),
                "file": file,
                "url": address,
            })
    print(json.dumps(found))


def user(name, secret, bucket, may_write):
    """Users and policies as an export of MinIO's own, the one admin call whose body is not encrypted."""
    statements = [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}]
    if may_write == "no":
        statements.append({"Effect": "Deny", "Action": ["s3:PutObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]})
    assets = io.BytesIO()
    with zipfile.ZipFile(assets, "w") as archive:
        archive.writestr("iam-assets/policies.json", json.dumps({name: {"Version": "2012-10-17", "Statement": statements}}))
        archive.writestr("iam-assets/users.json", json.dumps({name: {"secretKey": secret, "status": "enabled"}}))
        archive.writestr("iam-assets/user_mappings.json", json.dumps({name: {"version": 1, "policy": name}}))
    request = AWSRequest(method="PUT", url=setting["ENDPOINT"] + "/minio/admin/v3/import-iam", data=assets.getvalue())
    S3SigV4Auth(Credentials(setting["ACCESS_KEY"], setting["SECRET_KEY"]), "s3", "us-east-1").add_auth(request)
    sent = urllib.request.Request(request.url, data=request.body, method=request.method, headers=dict(request.headers))
    urllib.request.urlopen(sent, timeout=10).read()


def make(bucket):
    s3.create_bucket(Bucket=bucket)


{"read": read, "make": make, "user": user}[sys.argv[1]](*sys.argv[2:])
