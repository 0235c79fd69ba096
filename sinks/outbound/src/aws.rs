//! Who we are for AWS: a key from the configuration, or whatever the AWS chain finds, asked when first needed.
//!
//! In: references that the server resolves at the start, or nothing. Out: a key for the next signature, kept until
//! shortly before it ends or until the other side refuses it. Never asks at build time, so a machine without a network
//! starts all the same, and never shows a secret.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
pub use aws_credential_types::Credentials as Key;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use tokio::sync::{Mutex, OnceCell};

/// A key is renewed this long before it ends, so that no request is signed with one that ends on the way. Source:
/// the AWS SDKs renew instance credentials five minutes ahead.
const RENEWED_BEFORE_END: Duration = Duration::from_mins(5);

/// Longest wait for the chain. Its own steps have timeouts of a few seconds each; a single sign-on helper takes more.
const CHAIN_MAX: Duration = Duration::from_secs(30);

/// Where a key comes from, as a user writes it.
#[derive(Clone, Copy, Debug)]
pub struct KeySource<'a> {
    /// The region that the chain asks in.
    pub region: &'a str,
    /// The access key's public half. Absent, together with its secret: the chain is asked.
    pub access_key_id: Option<&'a SecretRef>,
    /// Its secret half.
    pub secret_access_key: Option<&'a SecretRef>,
    /// The token that comes with temporary keys.
    pub session_token: Option<&'a SecretRef>,
    /// The profile that the chain starts from.
    pub profile: Option<&'a str>,
}

impl KeySource<'_> {
    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here. `at` is where its
    /// fields stand.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        let parts = [
            ("access_key_id", self.access_key_id),
            ("secret_access_key", self.secret_access_key),
            ("session_token", self.session_token),
        ];
        for (name, reference) in parts {
            let Some(reference) = reference else { continue };
            match secrets.resolve(reference) {
                Err(reason) => problems.add(at.field(name), reason),
                Ok(value) if value.expose().is_empty() => {
                    problems.add(at.field(name), format!("{reference} is empty"));
                }
                Ok(_) => {}
            }
        }
        let missing = match (self.access_key_id, self.secret_access_key) {
            (None, Some(_)) => Some("access_key_id"),
            (Some(_), None) => Some("secret_access_key"),
            (None, None) if self.session_token.is_some() => Some("access_key_id"),
            _ => None,
        };
        if let Some(name) = missing {
            problems.add_with_hint(
                at.field(name),
                format!("{name} is missing"),
                "give both halves of a key, or none to use the AWS credential chain",
            );
        }
        match self.profile {
            Some("") => problems.add(at.field("profile"), "profile is empty"),
            Some(_) if self.access_key_id.is_some() => {
                problems.add(at.field("profile"), "profile has no effect beside an access key");
            }
            _ => {}
        }
    }
}

/// Where keys come from.
#[derive(Debug)]
pub enum Credentials {
    /// The configuration.
    Fixed(Key),
    /// The chain of the AWS SDKs: environment, profiles, web identity, SSO, container, instance.
    Chain(Box<Chain>),
}

/// No key can be had. The text names no secret.
#[derive(Debug, thiserror::Error)]
#[error("no credentials: {0}")]
pub struct NoCredentials(String);

impl Credentials {
    /// Takes the key that `source` names, or prepares the chain.
    ///
    /// # Errors
    /// A sentence for the operator when a named secret is missing or cannot be sent in a header.
    pub fn new(source: &KeySource<'_>, secrets: &dyn Secrets) -> Result<Self, String> {
        let resolve = |reference: &SecretRef| {
            let secret = secrets.resolve(reference)?;
            let text = secret.expose();
            let is_sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            if is_sendable { Ok(text.to_owned()) } else { Err(format!("{reference} holds no key that can be sent")) }
        };
        match (source.access_key_id, source.secret_access_key) {
            (Some(id), Some(secret)) => {
                let token = source.session_token.map(resolve).transpose()?;
                Ok(Self::Fixed(Key::new(resolve(id)?, resolve(secret)?, token, None, "configuration")))
            }
            (None, None) => Ok(Self::Chain(Box::new(Chain::new(source)))),
            _ => Err("access_key_id and secret_access_key belong together".to_owned()),
        }
    }

    /// The key to sign with now. Cancel safe: whoever asks next asks anew.
    ///
    /// # Errors
    /// When the chain finds none, or not in time.
    pub async fn get(&self) -> Result<Key, NoCredentials> {
        match self {
            Self::Fixed(key) => Ok(key.clone()),
            Self::Chain(chain) => tokio::time::timeout(CHAIN_MAX, chain.get())
                .await
                .unwrap_or_else(|_| Err(NoCredentials(format!("nothing within {CHAIN_MAX:?}")))),
        }
    }

    /// Forgets what was kept: the other side does not accept it. Files and services may hold a newer one by now.
    pub async fn forget(&self) {
        if let Self::Chain(chain) = self {
            *chain.kept.lock().await = None;
        }
    }
}

/// The AWS chain, with a memory: outside its own clients the SDK asks anew for every request.
#[derive(Debug)]
pub struct Chain {
    region: String,
    profile: Option<String>,
    provider: OnceCell<Option<SharedCredentialsProvider>>,
    /// Held while the chain is asked, so that many requests ask once.
    kept: Mutex<Option<Key>>,
}

impl Chain {
    fn new(source: &KeySource<'_>) -> Self {
        Self {
            region: source.region.to_owned(),
            profile: source.profile.map(str::to_owned),
            provider: OnceCell::new(),
            kept: Mutex::new(None),
        }
    }

    async fn get(&self) -> Result<Key, NoCredentials> {
        let mut kept = self.kept.lock().await;
        if let Some(key) = kept.as_ref().filter(|key| is_fresh(key)) {
            return Ok(key.clone());
        }
        let provider = self.provider.get_or_init(|| self.load()).await;
        let provider = provider.as_ref().ok_or_else(|| NoCredentials("the chain has no provider".to_owned()))?;
        let key = provider.provide_credentials().await.map_err(|error| NoCredentials(error.to_string()))?;
        *kept = Some(key.clone());
        Ok(key)
    }

    async fn load(&self) -> Option<SharedCredentialsProvider> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(self.region.clone()));
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        loader.load().await.credentials_provider()
    }
}

/// Whether there is time left to use it. One without an end is good until the other side refuses it.
fn is_fresh(key: &Key) -> bool {
    // `elapsed` of a moment yet to come is an error that holds the time until then.
    key.expiry().is_none_or(|end| end.elapsed().is_err_and(|left| left.duration() > RENEWED_BEFORE_END))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an end of credentials is a moment of the system's own clock")]
    fn credentials_are_renewed_five_minutes_before_they_end() {
        let ending_in = |secs: u64| {
            let end = SystemTime::now() + Duration::from_secs(secs);
            Key::new("id", "secret", None, Some(end), "test")
        };
        assert!(is_fresh(&ending_in(310)));
        assert!(!is_fresh(&ending_in(290)));
        assert!(!is_fresh(&Key::new("id", "secret", None, Some(SystemTime::UNIX_EPOCH), "test")));
        assert!(is_fresh(&Key::new("id", "secret", None, None, "test")));
    }
}
