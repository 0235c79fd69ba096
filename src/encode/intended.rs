//! Intended: where an object was meant to go that went to the dead-letter store whole, as metadata that stand with it there.
//! Pure; `docs/formats/dead-letters.md` has the names.
//!
//! In: store and key; out: two pairs of metadata, percent-encoded, for their values are visible ASCII. And back.

/// A store, in words, and a key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intended {
    /// The store, as its sink calls it: `s3://bucket`.
    pub store: String,
    /// The key.
    pub key: String,
}

const STORE: &str = "hydrant-intended-store";
const KEY: &str = "hydrant-intended-key";

impl Intended {
    /// The metadata that say it.
    pub fn metadata(&self) -> [(String, String); 2] {
        [(STORE.to_owned(), encoded(&self.store)), (KEY.to_owned(), encoded(&self.key))]
    }

    /// Takes it out of the metadata of an object; `None` when they do not say it.
    pub fn take(metadata: &mut Vec<(String, String)>) -> Option<Self> {
        let mut value = |name: &str| {
            let at = metadata.iter().position(|(found, _)| found == name)?;
            decoded(&metadata.remove(at).1)
        };
        let (store, key) = (value(STORE), value(KEY)?);
        Some(Self { store: store.unwrap_or_default(), key })
    }
}

/// Percent-encodes what may not stand in a metadata value, the percent sign included.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_stands_under_these_names_and_other_metadata_stay() {
        let intended = Intended { store: "s3://lake".to_owned(), key: "web/100% ü.gz".to_owned() };
        let mut metadata = intended.metadata().to_vec();
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let written =
            [text("hydrant-intended-store", "s3://lake"), text("hydrant-intended-key", "web/100%25%20%C3%BC.gz")];
        assert_eq!(metadata, written);
        metadata.insert(1, text("a", "kept"));
        assert_eq!(Intended::take(&mut metadata), Some(intended));
        assert_eq!(metadata, [text("a", "kept")]);
        assert_eq!(Intended::take(&mut metadata), None);
    }

    #[test]
    fn what_nobody_encoded_is_no_place() {
        for value in ["a%2", "%zz", "%FF", "%é"] {
            assert_eq!(Intended::take(&mut vec![(KEY.to_owned(), value.to_owned())]), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_place_comes_back(store in ".*", key in ".*") {
            let intended = Intended { store, key };
            let metadata = intended.metadata();
            prop_assert!(metadata.iter().all(|(_, value)| value.bytes().all(|byte| byte.is_ascii_graphic())));
            prop_assert_eq!(Intended::take(&mut metadata.to_vec()), Some(intended));
        }
    }
}
