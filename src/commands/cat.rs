//! `hydrant cat OBJECT`: the records of an object that Hydrant wrote.
//!
//! In: a file, or an object in a store of a configuration. Out: its raw bytes on standard output, a buffer at a time;
//! memory does not grow with the object. Never writes anywhere else.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args as ClapArgs;
use futures_util::{Stream, TryStreamExt};
use hydrant_core::{ByteSize, ObjectSource};
use tokio_util::io::ReaderStream;

use super::{Failure, Output, block_on};
use crate::config::spec::{Spec, StoreSpec, StreamSpec};
use crate::config::{self, LocalSecrets};
use crate::encode::decode::{Caps, DecodeError, Decoder, parts_of};

/// Writes the content of an object that Hydrant wrote, uncompressed.
///
/// Whether it is gzip, zstd or neither is told by its first bytes. Records that were compressed before they were put
/// come out as they were put.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant cat ./objects/2026/11/21/12/web-1-2026-11-21-12-00-00-046b6c7f-0b5a-4f82-9aa5-1d6ea8b4a2c3.gz
  hydrant cat s3://events/2026/11/21/12/web-1-….gz --config hydrant.yaml | head
  hydrant cat 2026/11/21/12/web-1-….gz --config hydrant.yaml --store main")]
pub(super) struct Args {
    /// The object: a path, `file:///path`, `s3://bucket/key`, or with --store a key in that store.
    #[arg(value_name = "OBJECT")]
    object: String,
    /// The configuration that says how stores are reached.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store that holds the object, by its name in the configuration. Needed if several are the same bucket.
    #[arg(long, value_name = "NAME", requires = "config")]
    store: Option<String>,
    /// Write the object as it is stored, still compressed.
    #[arg(long)]
    raw: bool,
    /// Most bytes to write. An object that holds more is cut there, with an error.
    #[arg(long, value_name = "SIZE", default_value_t = Caps::OBJECT.bytes_max)]
    limit: ByteSize,
}

/// Writes the object.
///
/// # Errors
/// When the object cannot be found or read, is damaged (exit code 4), or holds more than the limit.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let place = Place::parse(&args.object, args.store.as_deref())?;
    let spec = args.config.as_deref().map(|file| config::load(file, None, &LocalSecrets)).transpose()?;
    let source = Source::choose(place, spec.as_ref().map(|loaded| &loaded.spec))?;
    block_on(write(source, args, out))?.map_err(|failure| failure.at(&args.object))
}

async fn write(source: Source, args: &Args, out: &mut Output) -> Result<(), Failure> {
    let parts = source.open().await?;
    if args.raw {
        return write_raw(parts, args.limit, out).await;
    }
    let mut decoder = Decoder::open(parts, Caps { bytes_max: args.limit, ..Caps::OBJECT }).await?;
    while let Some(raw) = decoder.next().await? {
        out.write(&raw)?;
    }
    Ok(())
}

async fn write_raw(mut parts: Parts, limit: ByteSize, out: &mut Output) -> Result<(), Failure> {
    let mut room = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    while let Some(part) = parts.try_next().await.map_err(DecodeError::Unreadable)? {
        let fits = part.get(..room).unwrap_or(&part);
        out.write(fits)?;
        if fits.len() < part.len() {
            return Err(DecodeError::TooLarge(limit).into());
        }
        room -= fits.len();
    }
    Ok(())
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match &error {
            DecodeError::Damaged { source, .. } => Self::damage(format!("{error}: {source}")),
            DecodeError::Unreadable(source) => Self::failed(format!("{error}: {source}")).with_code("unreadable"),
            DecodeError::TooLarge(_) => Self::failed(format!("{error}; --limit allows more")).with_code("too_large"),
            DecodeError::TooDense(_) => Self::failed(error.to_string()).with_code("too_dense"),
        }
    }
}

/// Where an object lies, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A file of this machine.
    File(PathBuf),
    /// A key in the store that is `s3://bucket`, or has this name, or both.
    Store { bucket: Option<String>, name: Option<String>, key: String },
}

impl Place {
    fn parse(object: &str, store: Option<&str>) -> Result<Self, Failure> {
        let name = store.map(str::to_owned);
        if let Some(rest) = object.strip_prefix("s3://") {
            return match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                    Ok(Self::Store { bucket: Some(bucket.to_owned()), name, key: key.to_owned() })
                }
                _ => Err(Failure::usage(format!("`{object}` is not s3://bucket/key"))),
            };
        }
        if let Some(path) = object.strip_prefix("file://") {
            return match (path.starts_with('/'), store) {
                (true, None) => Ok(Self::File(path.into())),
                (true, Some(_)) => Err(Failure::usage("--store has no effect on a file")),
                (false, _) => Err(Failure::usage(format!("`{object}` is not file:///path"))),
            };
        }
        match object.split_once("://") {
            Some((scheme, _)) => Err(Failure::usage(format!("`{scheme}` is not file or s3"))),
            None if name.is_some() => Ok(Self::Store { bucket: None, name, key: object.to_owned() }),
            None => Ok(Self::File(object.into())),
        }
    }
}

/// An object's stored bytes.
type Parts = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Bytes of a file that are read at a time.
const FILE_PART_BYTES: usize = 256 << 10;

/// Where an object is read from.
enum Source {
    File(PathBuf),
    Store { source: Arc<dyn ObjectSource>, key: String },
}

impl Source {
    fn choose(place: Place, spec: Option<&Spec>) -> Result<Self, Failure> {
        match (place, spec) {
            (Place::File(path), _) => Ok(Self::File(path)),
            (Place::Store { .. }, None) => {
                Err(Failure::usage("an object in a store needs --config FILE, which says how the store is reached"))
            }
            (Place::Store { bucket, name, key }, Some(spec)) => {
                let store = choose_store(spec, bucket.as_deref(), name.as_deref())?;
                let source = store.config.open(&LocalSecrets).map_err(Failure::configuration)?;
                Ok(Self::Store { source, key })
            }
        }
    }

    async fn open(self) -> Result<Parts, Failure> {
        match self {
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| Failure::caused("open the object", &error))?;
                Ok(Box::pin(ReaderStream::with_capacity(file, FILE_PART_BYTES)))
            }
            Self::Store { source, key } => {
                let stored = source.open(&key).await.map_err(|fault| Failure::failed(fault.to_string()))?;
                Ok(Box::pin(parts_of(stored.body)))
            }
        }
    }
}

/// The one store of the document that has this name and is this bucket, as far as they were given.
fn choose_store<'a>(spec: &'a Spec, bucket: Option<&str>, name: Option<&str>) -> Result<&'a StoreSpec, Failure> {
    let mut fitting: Vec<&StoreSpec> = Vec::new();
    for store in spec.streams.values().flat_map(StreamSpec::stores) {
        let known = fitting.iter().any(|known| known.name == store.name);
        if !known && name.is_none_or(|name| store.name == name) && is_bucket(store, bucket) {
            fitting.push(store);
        }
    }
    let wanted = match (bucket, name) {
        (Some(bucket), Some(name)) => format!("a store `{name}` that is s3://{bucket}"),
        (Some(bucket), None) => format!("a store that is s3://{bucket}"),
        (None, name) => format!("a store `{}`", name.unwrap_or_default()),
    };
    match fitting.as_slice() {
        [store] => Ok(store),
        [] => Err(Failure::failed(format!("no stream of the configuration uses {wanted}")).with_code("unknown_store")),
        several => {
            let names: Vec<&str> = several.iter().map(|store| store.name.as_str()).collect();
            Err(Failure::usage(format!("several stores are that bucket ({}); --store chooses one", names.join(", "))))
        }
    }
}

fn is_bucket(store: &StoreSpec, bucket: Option<&str>) -> bool {
    bucket.is_none_or(|bucket| store.config.bucket() == Some(bucket))
}

#[cfg(test)]
mod tests;
