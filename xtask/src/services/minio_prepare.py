"""Makes in MinIO what tests expect: three buckets, and a user who may not write to one of them.

Everything is said by HYDRANT_TEST_S3_* variables. Running it twice changes nothing.
"""

import io
import json
import os
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
    region_name=setting["REGION"],
    aws_access_key_id=setting["ACCESS_KEY"],
    aws_secret_access_key=setting["SECRET_KEY"],
)
for bucket in ("BUCKET", "BUCKET_SPARE", "BUCKET_DENIED"):
    try:
        s3.create_bucket(Bucket=setting[bucket])
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass

# Users and policies come as an export of MinIO's own, the one admin call whose body is not encrypted.
user = setting["FENCED_ACCESS_KEY"]
policy = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]},
        {"Effect": "Deny", "Action": ["s3:PutObject"], "Resource": [f"arn:aws:s3:::{setting['BUCKET_DENIED']}/*"]},
    ],
}
assets = io.BytesIO()
with zipfile.ZipFile(assets, "w") as archive:
    archive.writestr("iam-assets/policies.json", json.dumps({"hydrant-fenced": policy}))
    archive.writestr("iam-assets/users.json", json.dumps({user: {"secretKey": setting["FENCED_SECRET_KEY"], "status": "enabled"}}))
    archive.writestr("iam-assets/user_mappings.json", json.dumps({user: {"version": 1, "policy": "hydrant-fenced"}}))

request = AWSRequest(method="PUT", url=setting["ENDPOINT"] + "/minio/admin/v3/import-iam", data=assets.getvalue())
S3SigV4Auth(Credentials(setting["ACCESS_KEY"], setting["SECRET_KEY"]), "s3", setting["REGION"]).add_auth(request)
sent = urllib.request.Request(request.url, data=request.body, method=request.method, headers=dict(request.headers))
urllib.request.urlopen(sent, timeout=10).read()
