//! Variable names, credentials, buckets and databases of the test servers: one list for the native servers and for
//! `docker-compose.yml`. They guard nothing: the servers listen on loopback and hold test data.

/// Root user of MinIO.
pub(crate) const S3_ACCESS_KEY: &str = "hydrant";
/// Password of MinIO's root user; at least 8 characters.
pub(crate) const S3_SECRET_KEY: &str = "hydrant-secret";
/// Region of MinIO.
pub(crate) const S3_REGION: &str = "us-east-1";
/// The bucket of most tests.
pub(crate) const S3_BUCKET: &str = "hydrant-events";
/// The bucket for dead letters.
pub(crate) const S3_BUCKET_SPARE: &str = "hydrant-spare";
/// The bucket that the fenced user may not write to: 403 `AccessDenied`.
pub(crate) const S3_BUCKET_DENIED: &str = "hydrant-denied";
/// A user who may do everything except write to the denied bucket.
pub(crate) const S3_FENCED_ACCESS_KEY: &str = "hydrant-fenced";
/// Its password.
pub(crate) const S3_FENCED_SECRET_KEY: &str = "hydrant-fenced-secret";
/// Name of the key of MinIO's built-in key store.
pub(crate) const S3_KMS_KEY: &str = "hydrant-key";
/// The key itself, base64 of 32 bytes.
pub(crate) const S3_KMS_SECRET: &str = "aHlkcmFudCB0ZXN0IGtleSwgZ3VhcmRzIG5vdGhpbmc=";

/// Superuser of PostgreSQL.
pub(crate) const POSTGRES_USER: &str = "hydrant";
/// Its password.
pub(crate) const POSTGRES_PASSWORD: &str = "hydrant-secret";
/// The database of the tests.
pub(crate) const POSTGRES_DATABASE: &str = "hydrant";
