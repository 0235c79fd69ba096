use hydrant_core::compression::{Compression, GzipLevel, ZstdLevel};
use proptest::prelude::*;

use super::*;
use crate::encode::compress::compress;

const CODECS: [(Codec, Compression); 3] = [
    (Codec::None, Compression::None),
    (Codec::Gzip, Compression::Gzip(GzipLevel::DEFAULT)),
    (Codec::Zstd, Compression::Zstd(ZstdLevel::DEFAULT)),
];

/// The stored bytes in parts of this length, as a stream.
fn parts(stored: &[u8], len: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let parts: Vec<_> = stored.chunks(len).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(parts)
}

fn object(raw: &[u8], compression: Compression) -> Vec<u8> {
    compress(vec![Bytes::copy_from_slice(raw)], compression).concat()
}

/// All that comes before the end or an error, which of the two, and the tally.
async fn decode(
    parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    caps: Caps,
) -> (Vec<u8>, Result<(), DecodeError>, Tally) {
    let mut decoder = match Decoder::open(parts, caps).await {
        Ok(decoder) => decoder,
        Err(error) => return (Vec::new(), Err(error), Tally::default()),
    };
    let mut raw = Vec::new();
    loop {
        match decoder.next().await {
            Ok(Some(bytes)) => raw.extend_from_slice(&bytes),
            Ok(None) => return (raw, Ok(()), decoder.tally()),
            Err(error) => return (raw, Err(error), decoder.tally()),
        }
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn what_was_compressed_is_decoded_and_counted(
        raw in prop::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..3000),
        part in 1_usize..2000,
    ) {
        for (codec, compression) in CODECS {
            if codec == Codec::None && Codec::of(&raw) != Codec::None {
                continue; // Compressed by the producer: told by its first bytes, not by ours.
            }
            let (decoded, end, tally) = wait(decode(parts(&object(&raw, compression), part), Caps::OBJECT));
            prop_assert!(end.is_ok(), "{codec}: {end:?}");
            prop_assert_eq!(&decoded, &raw);
            let lines = raw.split(|&byte| byte == b'\n').count() as u64;
            let records = if raw.is_empty() || raw.ends_with(b"\n") { lines - 1 } else { lines };
            prop_assert_eq!(tally, Tally { bytes: raw.len() as u64, records });
        }
    }

    #[test]
    fn bytes_that_nobody_wrote_end_in_an_error_or_the_end(
        codec in 0_usize..3, behind in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let magic: &[u8] = [b"".as_slice(), &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd]][codec];
        let caps = Caps { bytes_max: ByteSize::mib(4), ratio_max: 100 };
        let (raw, ..) = wait(decode(parts(&[magic, behind.as_slice()].concat(), 7), caps));
        prop_assert!(raw.len() as u64 <= caps.bytes_max.get());
    }
}

#[tokio::test]
async fn an_object_that_was_cut_or_changed_is_damaged() {
    let raw: Vec<u8> = (0..20_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (codec, compression) in &CODECS[1..] {
        let whole = object(&raw, *compression);
        let cut = &whole[..whole.len() - 1];
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for (what, stored) in [("cut", cut), ("changed", &changed)] {
            let (_, end, _) = decode(parts(stored, 1000), Caps::OBJECT).await;
            let damaged = matches!(&end, Err(DecodeError::Damaged { codec: told, .. }) if told == codec);
            assert!(damaged, "{codec} {what}: {end:?}");
        }
    }
}

#[tokio::test]
async fn objects_that_others_joined_are_decoded_to_their_end() {
    for (_, compression) in CODECS {
        let joined = [object(b"one\n", compression), object(b"two\n", compression)].concat();
        let (raw, end, tally) = decode(parts(&joined, 5), Caps::OBJECT).await;
        assert!(end.is_ok(), "{end:?}");
        assert_eq!((raw.as_slice(), tally.records), (b"one\ntwo\n".as_slice(), 2));
    }
}

#[tokio::test]
async fn an_object_may_be_as_large_as_its_cap_and_not_larger() {
    let raw = vec![b'x'; 200_000];
    for (_, compression) in CODECS {
        let stored = object(&raw, compression);
        let caps = |bytes| Caps { bytes_max: ByteSize::bytes(bytes), ..Caps::OBJECT };
        let (decoded, end, _) = decode(parts(&stored, 1000), caps(200_000)).await;
        assert!(end.is_ok() && decoded == raw, "{end:?}");
        let (decoded, end, _) = decode(parts(&stored, 1000), caps(199_999)).await;
        assert!(matches!(end, Err(DecodeError::TooLarge(_))), "{end:?}");
        assert_eq!(decoded.len(), 199_999, "what lies below the cap is given out");
    }
}

#[tokio::test]
async fn an_object_denser_than_its_cap_is_given_up() {
    let raw = vec![0; 8 << 20];
    for (_, compression) in &CODECS[1..] {
        let stored = object(&raw, *compression);
        let (decoded, end, _) = decode(parts(&stored, 1 << 20), Caps { ratio_max: 100, ..Caps::OBJECT }).await;
        assert!(matches!(end, Err(DecodeError::TooDense(100))), "{end:?}");
        assert!(decoded.len() <= 2 << 20, "{} bytes came first", decoded.len());
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_taken_for_damage() {
    for (codec, compression) in CODECS {
        let stored = object(b"some record\n", compression);
        for whole_before in [0, 3, stored.len() - 1] {
            let failing = stream::iter([
                Ok(Bytes::copy_from_slice(&stored[..whole_before])),
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
            ]);
            let (_, end, _) = decode(failing, Caps::OBJECT).await;
            let told = matches!(&end, Err(DecodeError::Unreadable(error)) if error.to_string() == "no answer");
            assert!(told, "{codec} after {whole_before} bytes: {end:?}");
        }
    }
}

/// A blob that gives what it has in small parts, and less than it promised if told so.
#[derive(Debug)]
struct Slow {
    bytes: Bytes,
    promised: u64,
}

#[async_trait::async_trait]
impl Blob for Slow {
    fn len(&self) -> u64 {
        self.promised
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.bytes.slice(start..(start + len.min(3)).min(self.bytes.len())))
    }
}

#[tokio::test]
async fn a_blob_is_read_to_the_end_it_promised() {
    let bytes = Bytes::from_static(b"0123456789");
    let blob = |promised| parts_of(Arc::new(Slow { bytes: bytes.clone(), promised }));
    assert_eq!(blob(10).try_collect::<Vec<_>>().await.unwrap().concat(), bytes);
    assert!(blob(0).try_collect::<Vec<_>>().await.unwrap().is_empty());
    let short = blob(11).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
}
