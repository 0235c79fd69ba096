//! Names and faults of the file system: which keys can be files, where things lie below the root, and what an error
//! of the operating system means for a batch. Pure.

use std::io;
use std::path::{Path, PathBuf};

use hydrant_core::{Fault, FaultCode, Object};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The folder below the root that is ours. No key may begin with it.
pub(crate) const OWN_FOLDER: &str = ".hydrant";

/// Longest name of a file or folder in bytes on the file systems in use. Source: `NAME_MAX` of Linux.
const NAME_BYTES_MAX: usize = 255;

/// Longest key in bytes, as for every object sink. Source: `Object::key`.
const KEY_BYTES_MAX: usize = 1024;

/// Where things lie below a root.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object lies. The key must have passed [`check_key`].
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Where files are written before they get their name: on the same file system as the objects.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join(OWN_FOLDER).join("temporary")
    }

    /// Where an object's metadata lie. The key must have passed [`check_key`].
    pub(crate) fn metadata(&self, key: &str) -> PathBuf {
        self.root.join(OWN_FOLDER).join("metadata").join(key)
    }
}

/// Checks that `key` names a file below the root, and one that every Linux file system can hold.
///
/// # Errors
/// Which rule it breaks. The text holds no part of the key: keys may hold values taken from records.
pub(crate) fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("key is empty");
    }
    if key.len() > KEY_BYTES_MAX {
        return Err("key is longer than 1,024 bytes");
    }
    if key.contains('\0') {
        return Err("key holds a zero byte");
    }
    for (depth, segment) in key.split('/').enumerate() {
        match segment {
            "" => return Err("key begins or ends with a slash, or holds two side by side"),
            "." | ".." => return Err("key holds a segment . or .."),
            OWN_FOLDER if depth == 0 => return Err("key begins with .hydrant, which the sink keeps for itself"),
            segment if segment.len() > NAME_BYTES_MAX => return Err("key holds a segment of more than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// What an error of the operating system means, while doing `act`. Everything here can be mended by an operator.
pub(crate) fn fault(act: &str, error: &io::Error) -> Fault {
    let code = match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => FaultCode::Full,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => FaultCode::Forbidden,
        // Where a folder belongs lies something else: there is no such folder until an operator takes it away.
        Some(Errno::NOENT | Errno::NOTDIR) => FaultCode::NotFound,
        Some(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => FaultCode::Conflict,
        Some(Errno::FBIG) => FaultCode::TooLarge,
        _ => FaultCode::Unavailable,
    };
    Fault::new(code, format!("{act}: {error}"))
}

/// What is kept beside an object, where the object carries metadata.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    #[expect(clippy::struct_field_names, reason = "the name in the file, which is the name that S3 gives it")]
    pub(crate) metadata: Vec<(String, String)>,
}

impl Metadata {
    /// What is to be kept beside `object`: nothing, unless it carries metadata of its own.
    pub(crate) fn of(object: &Object) -> Option<Vec<u8>> {
        if object.metadata.is_empty() {
            return None;
        }
        let mut metadata = object.metadata.clone();
        metadata.sort();
        let kept = Self {
            content_type: Some(object.content_type.clone()),
            content_encoding: object.content_encoding.clone(),
            metadata,
        };
        serde_json::to_vec_pretty(&kept).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_root_or_meet_our_own_folder_are_not_files() {
        for key in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\0b", ".hydrant", ".hydrant/a"]
        {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        assert!(check_key(&"n".repeat(256)).is_err());
        assert!(check_key(&"n/".repeat(600)).is_err());
        for key in ["a", "2026/11/21/a=1/b..c", "a/.hydrant", "...", "ä/ö", &"n".repeat(255)] {
            assert_eq!(check_key(key), Ok(()), "{key:?}");
        }
    }

    #[test]
    fn a_key_fault_shows_no_part_of_the_key() {
        let canary = "canary/../canary";
        assert!(check_key(canary).is_err_and(|reason| !reason.contains("canary")));
    }

    #[test]
    fn errors_of_the_system_are_told_apart_by_what_mends_them() {
        for (errno, code) in [
            (Errno::NOSPC, FaultCode::Full),
            (Errno::DQUOT, FaultCode::Full),
            (Errno::ACCESS, FaultCode::Forbidden),
            (Errno::ROFS, FaultCode::Forbidden),
            (Errno::NOENT, FaultCode::NotFound),
            (Errno::NOTDIR, FaultCode::NotFound),
            (Errno::FBIG, FaultCode::TooLarge),
            (Errno::IO, FaultCode::Unavailable),
        ] {
            assert_eq!(fault("write", &errno.into()).code, code, "{errno:?}");
        }
    }
}
