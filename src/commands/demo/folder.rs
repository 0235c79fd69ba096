//! The folder of the demo: settings, random keys, the server's data and log, and the objects.
//!
//! ```text
//!   hydrant-demo/
//!   ├── quickstart.yaml     the settings, config/quickstart.yaml with keys and an address
//!   ├── secret-key          for the server, mode 0600
//!   ├── aws-credentials     the same for AWS clients, mode 0600
//!   ├── aws-config          their region, and that the AWS CLI takes data as it is written
//!   ├── server.log          what the server said
//!   ├── data/               its log, outbox and ledger
//!   └── objects/            what was delivered; kept from run to run
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::commands::Failure;

/// The settings, as they lie in `config/`.
const QUICKSTART: &str = include_str!("../../../config/quickstart.yaml");

/// Where the server's own settings begin in them, behind what `config/` says of itself.
const SERVER: &str = "\nserver:\n";

/// What the settings of a demo say of themselves.
const HEADER: &str = "\
# The settings of `hydrant demo`, which writes them and the keys anew each time. Everything lies in this folder.
#
#   hydrant run ROOT/quickstart.yaml     the same server without the tour, from the folder that the demo was in
#
# It listens on this machine only and takes records from whoever signs with the keys in ROOT/aws-credentials.
# Every key that is not here has its default; `hydrant init` writes a document that shows them.";

/// What AWS clients are told besides keys. Version 2 of the AWS CLI takes data for base64 unless it is told; version 1
/// takes it as it is and does not know the line. Source: AWS CLI User Guide, `cli_binary_format`.
const AWS_CONFIG: &str = "[default]\nregion = us-east-1\ncli_binary_format = raw-in-base64-out\n";

/// The folder, as the settings name it.
const ROOT: &str = "./hydrant-demo/";

/// The access key of the demo.
pub(super) const ACCESS_KEY_ID: &str = "demo";

/// The region of the settings, the server's default.
pub(super) const REGION: &str = "us-east-1";

/// The stream of the settings.
pub(super) const STREAM: &str = "web";

/// The folder of the demo, and the keys of this one. Nobody else's demo uses it.
#[derive(Debug)]
pub(super) struct Folder {
    claimed: Claimed,
    secret: String,
}

/// A folder that no other demo uses while this is there.
#[derive(Debug)]
pub(super) struct Claimed {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder at `root` and claims it. Nothing in it is changed.
    ///
    /// # Errors
    /// When it cannot be made, or a demo or a server uses it.
    pub(super) fn claim(root: &Path) -> Result<Claimed, Failure> {
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        make.map_err(|error| Failure::caused(format!("make {}", root.display()), &error))?;
        let in_use = |what: &str, hint: &str| {
            Failure::failed(format!("{what}, and nothing was changed; {hint}")).with_code("in_use").at(root.display())
        };
        let failed = |error: io::Error| Failure::caused(format!("lock {}", root.display()), &error);
        let elsewhere = "go on with the lines that it printed, stop it with Ctrl-C, or start yours in another folder";
        let lock = locked(root).map_err(failed)?.ok_or_else(|| in_use("another demo runs here", elsewhere))?;
        // Not kept: the server of this demo is to have it.
        match locked(&root.join("data/lock")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(None) => {
                Err(in_use("a server runs on the data in this folder", "stop it, or start the demo in another folder"))
            }
            Ok(Some(_)) | Err(_) => Ok(Claimed { root: root.to_owned(), _lock: lock }),
        }
    }
}

impl Claimed {
    /// Writes new keys, and settings for a server that listens on `address`. What earlier runs delivered stays.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn prepare(self, address: SocketAddr) -> Result<Folder, Failure> {
        let folder = Folder { claimed: self, secret: random_secret()? };
        let keys =
            format!("[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {}\n", folder.secret);
        let settings = folder.quickstart(address);
        for (path, text, mode) in [
            (folder.secret_key(), folder.secret.as_str(), 0o600),
            (folder.aws_credentials(), &keys, 0o600),
            (folder.aws_config(), AWS_CONFIG, 0o644),
            (folder.settings(), &settings, 0o644),
        ] {
            write(&path, text, mode).map_err(|error| Failure::caused(format!("write {}", path.display()), &error))?;
        }
        Ok(folder)
    }
}

impl Folder {
    /// The settings of `config/`, told where to listen, whose signatures to take, and where the folder is.
    fn quickstart(&self, address: SocketAddr) -> String {
        let secret = self.secret_key();
        let server = format!(
            "{SERVER}  listen: {address}\n  credentials:\n    - access_key_id: {ACCESS_KEY_ID}\n      secret_access_key:\n        \
             file: {}\n",
            secret.display()
        );
        let (_, settings) = QUICKSTART.split_once(SERVER).unwrap_or(("", QUICKSTART));
        let root = self.root().display();
        let header = HEADER.replace("ROOT", &root.to_string());
        format!("{header}{server}{}", settings.replace(ROOT, &format!("{root}/")))
    }

    fn root(&self) -> &Path {
        &self.claimed.root
    }

    /// The secret key of the settings' access key.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// The settings.
    pub(super) fn settings(&self) -> PathBuf {
        self.root().join("quickstart.yaml")
    }

    /// The keys for AWS clients.
    pub(super) fn aws_credentials(&self) -> PathBuf {
        self.root().join("aws-credentials")
    }

    /// What else AWS clients are told.
    pub(super) fn aws_config(&self) -> PathBuf {
        self.root().join("aws-config")
    }

    /// What the server says.
    pub(super) fn server_log(&self) -> PathBuf {
        self.root().join("server.log")
    }

    /// What is delivered.
    pub(super) fn objects(&self) -> PathBuf {
        self.root().join("objects")
    }

    fn secret_key(&self) -> PathBuf {
        self.root().join("secret-key")
    }
}

/// 40 random characters, as long as the secret keys of AWS.
fn random_secret() -> Result<String, Failure> {
    let mut bytes = [0; 30];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    Ok(base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes))
}

/// Opens what lies at `path`, a folder or a file, and locks it until it is closed. `None` when somebody else has.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file anew, so that its mode is what it is to be from its first byte on.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4999);

    fn prepared(root: &Path) -> Folder {
        Folder::claim(root).unwrap().prepare(ADDRESS).unwrap()
    }

    #[test]
    fn a_folder_in_use_is_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let first = prepared(place.path());
        let before = fs::read(first.settings()).unwrap();
        let refused = Folder::claim(place.path()).unwrap_err().to_string();
        assert!(refused.contains("another demo runs here") && refused.contains("Ctrl-C"), "{refused}");
        assert_eq!(fs::read(first.settings()).unwrap(), before);
        drop(first);

        fs::create_dir(place.path().join("data")).unwrap();
        fs::write(place.path().join("data/lock"), "").unwrap();
        let server = locked(&place.path().join("data/lock")).unwrap();
        let refused = Folder::claim(place.path()).unwrap_err().to_string();
        assert!(refused.contains("a server runs on the data"), "{refused}");
        drop(server);
        Folder::claim(place.path()).unwrap();
    }

    #[test]
    fn keys_are_random_and_only_the_owner_reads_them() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("demo");
        let first = prepared(&root).secret().to_owned();
        let second = prepared(&root);
        assert_ne!(first, second.secret());
        for file in [second.secret_key(), second.aws_credentials()] {
            assert!(fs::read_to_string(&file).unwrap().contains(second.secret()));
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn the_settings_are_those_of_the_repository_with_keys_address_and_folder() {
        for part in [SERVER, ROOT, &format!("\n  {STREAM}:\n")] {
            assert!(QUICKSTART.contains(part), "config/quickstart.yaml lacks {part:?}");
        }
        let place = tempfile::tempdir().unwrap();
        let folder = prepared(place.path());
        let settings = fs::read(folder.settings()).unwrap();
        let settings = String::from_utf8_lossy(&settings);
        assert!(!settings.contains(folder.secret()) && !settings.contains("Nobody is asked"), "{settings}");
        assert!(settings.contains(&format!("keys in {}/aws-credentials", place.path().display())), "{settings}");
        let spec = crate::config::load(&folder.settings(), None, &crate::config::LocalSecrets).unwrap().spec;
        assert_eq!(spec.server.listen, ADDRESS);
        assert_eq!(spec.server.region, REGION);
        assert_eq!(spec.server.data, place.path().join("data"));
        let credential = &spec.server.credentials[0];
        assert_eq!(
            (credential.access_key_id.as_str(), credential.secret_access_key.expose()),
            (ACCESS_KEY_ID, folder.secret())
        );
    }
}
