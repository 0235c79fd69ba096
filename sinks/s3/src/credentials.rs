//! Credentials: a key from the configuration, or whatever the AWS chain finds, asked when first needed.
//!
//! In: references that the server resolves at the start, or nothing. Out: a key for the next signature, kept until
//! shortly before it ends or until the store refuses it. Never asks at build time, so a machine without a network
//! starts all the same, and never shows a secret.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials as ChainCredentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use hydrant_core::secret::{SecretRef, Secrets};
use object_store::aws::AwsCredential;
use tokio::sync::{Mutex, OnceCell};

use crate::config::StoreConfig;

/// A key is renewed this long before it ends, so that no request is signed with one that ends on the way. Source:
/// the AWS SDKs renew instance credentials five minutes ahead.
const RENEWED_BEFORE_END: Duration = Duration::from_mins(5);

/// Longest wait for the chain. Its own steps have timeouts of a few seconds each; a single sign-on helper takes more.
const CHAIN_MAX: Duration = Duration::from_secs(30);

/// Where keys come from.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// The configuration.
    Fixed(Arc<AwsCredential>),
    /// The chain of the AWS SDKs: environment, profiles, web identity, SSO, container, instance.
    Chain(Box<Chain>),
}

/// No key can be had. The text names no secret.
#[derive(Debug, thiserror::Error)]
#[error("no credentials: {0}")]
pub(crate) struct NoCredentials(String);

impl Credentials {
    /// Takes the key that `config` names, or prepares the chain.
    ///
    /// # Errors
    /// A sentence for the operator when a named secret is missing or cannot be sent in a header.
    pub(crate) fn new(config: &StoreConfig, secrets: &dyn Secrets) -> Result<Self, String> {
        let resolve = |reference: &SecretRef| {
            let secret = secrets.resolve(reference)?;
            let text = secret.expose();
            let is_sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            if is_sendable { Ok(text.to_owned()) } else { Err(format!("{reference} holds no key that can be sent")) }
        };
        match (&config.access_key_id, &config.secret_access_key) {
            (Some(id), Some(secret)) => Ok(Self::Fixed(Arc::new(AwsCredential {
                key_id: resolve(id)?,
                secret_key: resolve(secret)?,
                token: config.session_token.as_ref().map(resolve).transpose()?,
            }))),
            (None, None) => Ok(Self::Chain(Box::new(Chain::new(config.region(), config.profile.clone())))),
            _ => Err("access_key_id and secret_access_key belong together".to_owned()),
        }
    }

    /// The key to sign with now. Cancel safe: whoever asks next asks anew.
    pub(crate) async fn get(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        match self {
            Self::Fixed(key) => Ok(Arc::clone(key)),
            Self::Chain(chain) => tokio::time::timeout(CHAIN_MAX, chain.get())
                .await
                .unwrap_or_else(|_| Err(NoCredentials(format!("nothing within {CHAIN_MAX:?}")))),
        }
    }

    /// Forgets what was kept: the store does not accept it. Files and services may hold a newer one by now.
    pub(crate) async fn forget(&self) {
        if let Self::Chain(chain) = self {
            *chain.kept.lock().await = None;
        }
    }
}

/// The AWS chain, with a memory: outside its own clients the SDK asks anew for every request.
#[derive(Debug)]
pub(crate) struct Chain {
    region: String,
    profile: Option<String>,
    provider: OnceCell<Option<SharedCredentialsProvider>>,
    /// Held while the chain is asked, so that many requests ask once.
    kept: Mutex<Option<ChainCredentials>>,
}

impl Chain {
    fn new(region: &str, profile: Option<String>) -> Self {
        Self { region: region.to_owned(), profile, provider: OnceCell::new(), kept: Mutex::new(None) }
    }

    async fn get(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|credentials| is_fresh(credentials)) {
            return Ok(Arc::new(to_key(credentials)));
        }
        let provider = self.provider.get_or_init(|| self.load()).await;
        let provider = provider.as_ref().ok_or_else(|| NoCredentials("the chain has no provider".to_owned()))?;
        let credentials = provider.provide_credentials().await.map_err(|error| NoCredentials(error.to_string()))?;
        let key = Arc::new(to_key(&credentials));
        *kept = Some(credentials);
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

/// Whether there is time left to use them. Those without an end are good until the store refuses them.
fn is_fresh(credentials: &ChainCredentials) -> bool {
    // `elapsed` of a moment yet to come is an error that holds the time until then.
    credentials.expiry().is_none_or(|end| end.elapsed().is_err_and(|left| left.duration() > RENEWED_BEFORE_END))
}

fn to_key(credentials: &ChainCredentials) -> AwsCredential {
    AwsCredential {
        key_id: credentials.access_key_id().to_owned(),
        secret_key: credentials.secret_access_key().to_owned(),
        token: credentials.session_token().map(str::to_owned),
    }
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
            ChainCredentials::new("id", "secret", None, Some(end), "test")
        };
        assert!(is_fresh(&ending_in(310)));
        assert!(!is_fresh(&ending_in(290)));
        assert!(!is_fresh(&ChainCredentials::new("id", "secret", None, Some(SystemTime::UNIX_EPOCH), "test")));
        assert!(is_fresh(&ChainCredentials::new("id", "secret", None, None, "test")));
    }
}
