//! From the bytes of an object to the bytes of its records: one whole gzip member, one whole zstd frame, or as they are.
//! Dead-letter envelopes are opened.

use std::io::{Cursor, Read};

use anyhow::{Context, bail, ensure};

use crate::document;

/// Largest object after decompression: the largest buffer is 128 MiB.
const RECORDS_BYTES_MAX: u64 = 256 << 20;

/// Decodes an object by the extension of its key. Behind each record that lay in an envelope stands the delimiter.
///
/// # Errors
/// When the bytes are not one whole stream of what the key promises.
pub(super) fn decode(key: &str, bytes: Vec<u8>, delimiter: &[u8]) -> anyhow::Result<Vec<u8>> {
    let records = match key.rsplit_once('.').map(|(_, extension)| extension) {
        Some("gz") => gunzip(&bytes).context("gzip")?,
        Some("zst") => unzstd(&bytes).context("zstd")?,
        _ => bytes,
    };
    if !records.starts_with(b"{\"") || records.starts_with(document::START) {
        return Ok(records);
    }
    open_envelopes(&records, delimiter).context("dead-letter envelope")
}

fn gunzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoder = flate2::bufread::GzDecoder::new(Cursor::new(bytes));
    let records = read_all(&mut decoder)?;
    whole(&decoder.into_inner(), bytes)?;
    Ok(records)
}

fn unzstd(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(Cursor::new(bytes))?.single_frame();
    let records = read_all(&mut decoder)?;
    whole(&decoder.finish(), bytes)?;
    Ok(records)
}

fn read_all(decoder: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut records = Vec::new();
    decoder.take(RECORDS_BYTES_MAX + 1).read_to_end(&mut records)?;
    ensure!(records.len() as u64 <= RECORDS_BYTES_MAX, "more than {RECORDS_BYTES_MAX} bytes");
    Ok(records)
}

fn whole(read: &Cursor<&[u8]>, bytes: &[u8]) -> anyhow::Result<()> {
    let left = (bytes.len() as u64).saturating_sub(read.position());
    if left > 0 {
        bail!("{left} bytes behind the end of the stream");
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Envelope {
    #[serde(rename = "rawData")]
    raw_data: String,
}

fn open_envelopes(lines: &[u8], delimiter: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut records = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let envelope: Envelope = serde_json::from_slice(line)?;
        base64_simd::STANDARD.decode_append(envelope.raw_data, &mut records)?;
        records.extend_from_slice(delimiter);
    }
    Ok(records)
}
