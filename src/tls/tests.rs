//! Certificates made with `openssl`, in `tests/golden/tls`; its `README.md` says how. They guard nothing.

use std::fs;
use std::path::PathBuf;

use hydrant_core::secret::SecretRef;

use super::*;
use crate::config::LocalSecrets;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tls");

fn golden(name: &str) -> Vec<u8> {
    fs::read(format!("{GOLDEN}/{name}")).unwrap()
}

/// A folder with a pair in it.
struct Pair {
    folder: tempfile::TempDir,
    spec: TlsSpec,
}

impl Pair {
    fn of(certificate: &[u8], key: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let key_at = SecretRef::File(path("key.pem").display().to_string());
        let pair = Self { spec: TlsSpec { certificate: path("certificate.pem"), key: key_at }, folder };
        pair.put(certificate, key);
        pair
    }

    fn put(&self, certificate: &[u8], key: &[u8]) {
        fs::write(self.folder.path().join("certificate.pem"), certificate).unwrap();
        fs::write(self.folder.path().join("key.pem"), key).unwrap();
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(&self.spec, &LocalSecrets)
    }
}

#[test]
fn a_pair_is_taken_and_says_which_protocols_it_speaks() {
    for key in ["one.key", "one.sec1.key"] {
        let tls = Pair::of(&golden("one.crt"), &golden(key)).load().unwrap();
        assert_eq!(tls.current().config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}

#[test]
fn what_cannot_be_used_is_told_by_the_file_at_fault_and_shows_no_key() {
    let check = |certificate: &[u8], key: &[u8], expected: &str| {
        let pair = Pair::of(certificate, key);
        let error = pair.load().unwrap_err().to_string();
        let error = error.replace(pair.folder.path().to_str().unwrap(), "FOLDER");
        assert_eq!(error, expected);
    };
    let (certificate, key) = (golden("one.crt"), golden("one.key"));
    check(b"", &key, "certificate: the file holds no certificate");
    check(&key, &key, "certificate: the file holds no certificate");
    check(b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", &key, "certificate: the file is not PEM");
    check(&vec![b'x'; (1 << 20) + 1], &key, "certificate: FOLDER/certificate.pem is larger than 1048576 bytes");
    check(&certificate, b"hunter2", "key: this is no unencrypted private key in PEM");
    check(&certificate, &certificate, "key: this is no unencrypted private key in PEM");
    check(&certificate, &golden("encrypted.key"), "key: this is no unencrypted private key in PEM");
    check(&certificate, b"", "key: file FOLDER/key.pem is empty");
    check(&certificate, &golden("two.key"), "key: the key does not belong to the first certificate of the file");
    let missing = Pair::of(&certificate, &key);
    fs::remove_file(&missing.spec.certificate).unwrap();
    let error = missing.load().unwrap_err().to_string();
    assert!(error.starts_with("certificate: ") && error.ends_with("(os error 2)"), "{error}");
}

#[test]
fn a_new_pair_is_taken_and_half_a_pair_is_not() {
    let pair = Pair::of(&golden("one.crt"), &golden("one.key"));
    let tls = pair.load().unwrap();
    assert_eq!(tls.reload(&LocalSecrets), Ok(false));
    let in_force = || tls.current().certificates;
    pair.put(&golden("two.crt"), &golden("one.key"));
    assert!(tls.reload(&LocalSecrets).is_err());
    assert_eq!(in_force(), golden("one.crt"));
    pair.put(&golden("two.crt"), &golden("two.key"));
    assert_eq!(tls.reload(&LocalSecrets), Ok(true));
    assert_eq!(in_force(), golden("two.crt"));
}
