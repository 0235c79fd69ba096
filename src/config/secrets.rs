//! Where secrets come from: the environment and files of this machine.
//!
//! In: references. Out: secrets, or a sentence that holds the reference and nothing of the value.

use std::io::Read;

use hydrant_core::secret::{Secret, SecretRef, Secrets};

use super::mask::is_variable;

/// Most bytes of a secret in a file; a key with its certificate chain is a few KiB.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads environment variables and files of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalSecrets;

/// Finds every secret, whatever it refers to: to check a document where its secrets are not at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnySecrets;

impl Secrets for LocalSecrets {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let value = match reference {
            SecretRef::Env(name) => read_variable(name)?,
            SecretRef::File(path) => read_file(path).map_err(|why| format!("{reference} {why}"))?,
        };
        if value.is_empty() { Err(format!("{reference} is empty")) } else { Ok(Secret::new(value)) }
    }
}

impl Secrets for AnySecrets {
    fn resolve(&self, _: &SecretRef) -> Result<Secret, String> {
        Ok(Secret::new("unknown"))
    }

    fn are_real(&self) -> bool {
        false
    }
}

fn read_variable(name: &str) -> Result<String, String> {
    // What cannot be a name may be the secret itself, so it is not repeated.
    if !is_variable(name) {
        return Err("this cannot be the name of an environment variable".to_owned());
    }
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => format!("environment variable {name} is not set"),
        std::env::VarError::NotUnicode(_) => format!("environment variable {name} is not text"),
    })
}

/// The text of a file without its last line ending.
fn read_file(path: &str) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("is larger than {SECRET_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_last_line_ending_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, secret) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), (" a\nb \n\n", " a\nb \n")] {
            std::fs::write(&path, content).unwrap();
            let found = LocalSecrets.resolve(&SecretRef::File(path.display().to_string())).unwrap();
            assert_eq!(found.expose(), secret, "{content:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_told_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let check = |content: &[u8], text: &str| {
            let path = folder.path().join("secret");
            std::fs::write(&path, content).unwrap();
            let error = LocalSecrets.resolve(&SecretRef::File(path.display().to_string())).unwrap_err();
            assert_eq!(error, format!("file {} {text}", path.display()));
        };
        check(b"\n", "is empty");
        check(b"hunter2\xff", "is not text");
        check(&[b'x'; (64 << 10) + 1], "is larger than 65536 bytes");
        let missing = LocalSecrets.resolve(&SecretRef::File("/nonexistent/secret".into())).unwrap_err();
        assert!(missing.starts_with("file /nonexistent/secret cannot be read: "), "{missing}");
        let unset = LocalSecrets.resolve(&SecretRef::Env("HYDRANT_TEST_NOT_SET_ANYWHERE".into())).unwrap_err();
        assert_eq!(unset, "environment variable HYDRANT_TEST_NOT_SET_ANYWHERE is not set");
    }
}
