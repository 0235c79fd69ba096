//! Places where objects arrive, read by clients that are not those that wrote them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;

use super::PlacePlan;
use super::table::Table;
use crate::client::{Answer, Connection};
use crate::signature::{Signer, Unsigned, amz_date, sha256_hex};

/// How long a store may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    /// Changes when the object is written again: the `ETag`, or size and time of a file.
    pub(super) mark: String,
}

/// A place.
#[derive(Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    S3(Box<Bucket>),
    Table(Table),
}

impl Place {
    pub(super) fn open(plan: &PlacePlan) -> anyhow::Result<Self> {
        Ok(match plan {
            PlacePlan::Folder(path) => Self::Folder(path.clone()),
            PlacePlan::S3 { endpoint, bucket, prefix } => Self::S3(Box::new(Bucket::open(endpoint, bucket, prefix)?)),
            PlacePlan::Table(table) => Self::Table(Table::open(table)?),
        })
    }

    /// All objects, and how many files there are that are none.
    pub(super) fn list(&mut self) -> anyhow::Result<(Vec<Listed>, u64)> {
        match self {
            Self::Folder(root) => {
                let (mut found, mut others) = (Vec::new(), 0);
                walk(root, root, &mut found, &mut others).with_context(|| format!("list {}", root.display()))?;
                Ok((found, others))
            }
            Self::S3(bucket) => Ok((bucket.list()?, 0)),
            Self::Table(table) => Ok((table.list()?, 0)),
        }
    }

    /// The bytes of an object.
    pub(super) fn read(&mut self, key: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Folder(root) => fs::read(root.join(key)).with_context(|| format!("read {key}")),
            Self::S3(bucket) => bucket.read(key),
            Self::Table(table) => table.read(key),
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Folder(root) => root.display().to_string(),
            Self::S3(bucket) => format!("s3://{}/{}", bucket.name, bucket.prefix),
            Self::Table(table) => table.name().to_owned(),
        }
    }
}

/// Files are objects unless their name or their folder's begins with a dot, as that of temporary ones does. A folder that
/// is not there yet is empty, and so is one that something else is in the way of.
fn walk(root: &Path, folder: &Path, found: &mut Vec<Listed>, others: &mut u64) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let meta = match entry.metadata() {
            // A temporary file that got its name meanwhile: the next listing has it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            meta => meta?,
        };
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if meta.is_dir() && hidden {
            let mut inside = Vec::new();
            walk(root, &path, &mut inside, others)?;
            *others += inside.len() as u64;
        } else if meta.is_dir() {
            walk(root, &path, found, others)?;
        } else if hidden {
            *others += 1;
        } else {
            let written = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let key = path.strip_prefix(root)?.to_str().context("a name that is not UTF-8")?.to_owned();
            found.push(Listed { key, mark: format!("{}-{}", meta.len(), written.as_nanos()) });
        }
    }
    Ok(())
}

/// The objects of a bucket that begin with a prefix, over a connection of its own. Credentials come from
/// `HYDRANT_TEST_S3_ACCESS_KEY` and `HYDRANT_TEST_S3_SECRET_KEY`.
#[derive(Debug)]
pub(super) struct Bucket {
    connection: Connection,
    signer: Signer,
    name: String,
    prefix: String,
}

impl Bucket {
    fn open(endpoint: &str, bucket: &str, prefix: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let access_key_id = variable("HYDRANT_TEST_S3_ACCESS_KEY")?;
        let secret_access_key = variable("HYDRANT_TEST_S3_SECRET_KEY")?;
        Ok(Self {
            connection: Connection::to(endpoint, ANSWER_WITHIN).context(endpoint.to_owned())?,
            signer: Signer::new(&access_key_id, &secret_access_key, "us-east-1", "s3"),
            name: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn list(&mut self) -> anyhow::Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            // Names in alphabetical order, as the signature wants them.
            let continued = token.map(|token: String| format!("continuation-token={}&", encode(&token, false)));
            let query = format!("{}list-type=2&prefix={}", continued.unwrap_or_default(), encode(&self.prefix, false));
            let page = self.get(&format!("/{}", self.name), &query)?;
            let page = String::from_utf8(page).context("listing")?;
            for entry in page.split("<Contents>").skip(1) {
                let key = element(entry, "Key").context("a listing without keys")?;
                found.push(Listed { key, mark: element(entry, "ETag").unwrap_or_default() });
            }
            token = element(&page, "NextContinuationToken");
            if token.is_none() {
                ensure!(!page.contains("<IsTruncated>true"), "a cut listing without a token");
                return Ok(found);
            }
        }
    }

    fn read(&mut self, key: &str) -> anyhow::Result<Vec<u8>> {
        self.get(&format!("/{}/{}", self.name, encode(key, true)), "")
    }

    /// Reading twice does no harm: a connection that the store closed meanwhile is opened again.
    fn get(&mut self, path: &str, query: &str) -> anyhow::Result<Vec<u8>> {
        let answer =
            self.attempt(path, query).or_else(|_| self.attempt(path, query)).with_context(|| path.to_owned())?;
        if answer.status != 200 {
            bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer.body)
    }

    fn attempt(&mut self, path: &str, query: &str) -> std::io::Result<Answer> {
        self.exchange("GET", path, query, b"")
    }

    fn exchange(&mut self, method: &str, path: &str, query: &str, body: &[u8]) -> std::io::Result<Answer> {
        let date = amz_date(Timestamp::now());
        let sha256 = sha256_hex(body);
        let headers = [
            ("host", self.connection.host()),
            ("x-amz-content-sha256", sha256.as_str()),
            ("x-amz-date", date.as_str()),
        ];
        let unsigned = Unsigned { method, path, query, headers: &headers, body_sha256: &sha256 };
        let authorization = self.signer.authorization(&unsigned, &date);
        let mark = if query.is_empty() { "" } else { "?" };
        let len = body.len();
        let mut head = format!(
            "{method} {path}{mark}{query} HTTP/1.1\r\nauthorization: {authorization}\r\ncontent-length: {len}\r\n"
        );
        for (name, value) in headers {
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        head.push_str("\r\n");
        self.connection.send(head.as_bytes(), body)
    }
}

/// Percent-encodes as the signature wants it; slashes stay in paths.
fn encode(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if path => out.push('/'),
            _ => out.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]),
        }
    }
    out
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#34;", "\"");
    Some(text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_once_and_listings_are_read() {
        assert_eq!(encode("a b/ä=1", true), "a%20b/%C3%A4%3D1");
        assert_eq!(encode("a/b", false), "a%2Fb");
        let xml = "<X><Key>a&amp;b/&quot;c</Key><ETag>&#34;d41d&#34;</ETag></X>";
        assert_eq!(element(xml, "Key").as_deref(), Some("a&b/\"c"));
        assert_eq!(element(xml, "ETag").as_deref(), Some("\"d41d\""));
        assert_eq!(element(xml, "Size"), None);
    }

    #[test]
    #[ignore = "needs the services of cargo xtask"]
    fn a_bucket_is_listed_to_its_end_and_its_objects_are_read() {
        let variable = |name: &str| std::env::var(name).unwrap();
        let prefix = format!("kit-places/{} & co/", std::process::id());
        let (endpoint, name) = (variable("HYDRANT_TEST_S3_ENDPOINT"), variable("HYDRANT_TEST_S3_BUCKET"));
        let mut bucket = Bucket::open(&endpoint, &name, &prefix).unwrap();
        // One more than a page holds.
        let keys: Vec<String> = (0..1001).map(|number| format!("{prefix}{number:04}")).collect();
        for key in &keys {
            let path = format!("/{name}/{}", encode(key, true));
            assert_eq!(bucket.exchange("PUT", &path, "", key.as_bytes()).unwrap().status, 200);
        }
        let listed = bucket.list().unwrap();
        assert_eq!(listed.iter().map(|object| &object.key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        assert!(listed.iter().all(|object| object.mark.len() > 8), "{:?}", listed.first());
        assert_eq!(bucket.read(&keys[1000]).unwrap(), keys[1000].as_bytes());
        assert!(bucket.read("kit-places/none").is_err());
    }
}
