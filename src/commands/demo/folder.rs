//! The folder of the demo: settings, random keys, the server's data and log, and the objects.
//!
//! ```text
//!   hydrant-demo/
//!   ├── quickstart.yaml     the settings, config/quickstart.yaml with keys and an address
//!   ├── secret-key          for the server, mode 0600
//!   ├── aws-credentials     the same for AWS clients, mode 0600
//!   ├── server.log          what the server said
//!   ├── data/               its log, outbox and ledger
//!   └── objects/            what was delivered; kept from run to run
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::commands::Failure;

/// The settings, as they lie in `config/`.
const QUICKSTART: &str = include_str!("../../../config/quickstart.yaml");

/// Where the server's own settings begin in them.
const SERVER: &str = "\nserver:\n";

/// The folder, as the settings name it.
const ROOT: &str = "./hydrant-demo/";

/// The access key of the demo.
pub(super) const ACCESS_KEY_ID: &str = "demo";

/// The region of the settings, the server's default.
pub(super) const REGION: &str = "us-east-1";

/// The stream of the settings.
pub(super) const STREAM: &str = "web";

/// The folder of the demo.
pub(super) struct Folder {
    root: PathBuf,
    secret: String,
}

impl Folder {
    /// Makes the folder at `root` with new keys, and settings for a server that listens on `address`. What earlier runs
    /// delivered stays.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn prepare(root: &Path, address: SocketAddr) -> Result<Self, Failure> {
        let failed = |act: &str, error: &io::Error| Failure::caused(format!("{act} in {}", root.display()), error);
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        make.map_err(|error| Failure::caused(format!("make {}", root.display()), &error))?;
        let secret = random_secret()?;
        let folder = Self { root: root.to_owned(), secret };
        let keys =
            format!("[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {}\n", folder.secret);
        let settings = folder.quickstart(address);
        write(&folder.secret_key(), &folder.secret, 0o600).map_err(|error| failed("write the secret", &error))?;
        write(&folder.aws_credentials(), &keys, 0o600).map_err(|error| failed("write the keys", &error))?;
        write(&folder.settings(), &settings, 0o644).map_err(|error| failed("write the settings", &error))?;
        Ok(folder)
    }

    /// The settings of `config/`, told where to listen, whose signatures to take, and where the folder is.
    fn quickstart(&self, address: SocketAddr) -> String {
        let secret = self.secret_key();
        let server = format!(
            "{SERVER}  listen: {address}\n  credentials:\n    - access_key_id: {ACCESS_KEY_ID}\n      secret_access_key:\n        \
             file: {}\n",
            secret.display()
        );
        QUICKSTART.replace(SERVER, &server).replace(ROOT, &format!("{}/", self.root.display()))
    }

    /// The secret key of the settings' access key.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// The settings.
    pub(super) fn settings(&self) -> PathBuf {
        self.root.join("quickstart.yaml")
    }

    /// The keys for AWS clients.
    pub(super) fn aws_credentials(&self) -> PathBuf {
        self.root.join("aws-credentials")
    }

    /// What the server says.
    pub(super) fn server_log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// What is delivered.
    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn secret_key(&self) -> PathBuf {
        self.root.join("secret-key")
    }
}

/// 40 random characters, as long as the secret keys of AWS.
fn random_secret() -> Result<String, Failure> {
    let mut bytes = [0; 30];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    Ok(base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes))
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

    #[test]
    fn keys_are_random_and_only_the_owner_reads_them() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("demo");
        let first = Folder::prepare(&root, ADDRESS).unwrap();
        let second = Folder::prepare(&root, ADDRESS).unwrap();
        assert_ne!(first.secret(), second.secret());
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
        let folder = Folder::prepare(place.path(), ADDRESS).unwrap();
        let settings = fs::read(folder.settings()).unwrap();
        assert!(!String::from_utf8_lossy(&settings).contains(folder.secret()));
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
