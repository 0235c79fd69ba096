//! Who calls: the gate that every operation passes.
//!
//! In: the head of a request and the time; later the hash of its body. Out: nothing, or why not. Two steps, so that
//! what is plainly wrong is known before a body is kept: [`Gate::examine`] looks at everything but the signature,
//! [`Gate::verify`] at the signature.
//!
//! Never says more about a wrong signature than that it is wrong, and takes as long for a key id that nobody has as
//! for one that somebody has. Without credentials the gate stands open; the configuration allows that on loopback only.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST};
use http::request::Parts;
use http::uri::Authority;
use hydrant_core::Timestamp;
use hydrant_core::secret::Secret;

use super::error::ServiceError;
use super::sigv4::{self, Authorization};
use crate::config::spec::Credential;

/// How far the clock of a client may be from ours, either way. Source: most requests to the service must arrive
/// within five minutes of their time stamp.
const SKEW_MAX: Duration = Duration::from_mins(5);

const SERVICE: &str = "firehose";
const X_AMZ_DATE: &str = "x-amz-date";
const X_AMZ_TARGET: &str = "x-amz-target";
const X_AMZ_CONTENT_SHA256: &str = "x-amz-content-sha256";

/// The gate: who may call, and in which region.
#[derive(Debug)]
pub(super) struct Gate {
    region: String,
    keys: Vec<AccessKey>,
    /// Stands in for a key that nobody has, so that looking for one takes as long.
    decoy: AccessKey,
}

/// An access key with the signing key of the day it was last used on.
struct AccessKey {
    id: String,
    secret: Secret,
    derived: Mutex<Option<(String, hmac::Key)>>,
}

/// A request that is in order up to its signature.
#[derive(Debug)]
pub(super) struct Claim {
    authorization: Authorization,
    /// As `20150830T123600Z`.
    time: String,
    /// What the client says that the body hashes to, if it says so.
    body_hash: Option<[u8; 32]>,
}

impl Gate {
    /// The gate of a region for these credentials; open to everybody when there are none. `decoy` is any text that
    /// nobody can guess.
    pub(super) fn new(region: &str, credentials: &[Credential], decoy: &str) -> Self {
        let key = |id: &str, secret: Secret| AccessKey { id: id.to_owned(), secret, derived: Mutex::new(None) };
        Self {
            region: region.to_owned(),
            keys: credentials.iter().map(|it| key(&it.access_key_id, it.secret_access_key.clone())).collect(),
            decoy: key("", Secret::new(decoy)),
        }
    }

    /// Where nobody has to sign, only names of this machine are served: a web page could have its own name resolve to
    /// loopback and would then be as good as local.
    ///
    /// # Errors
    /// When the request was sent to another name.
    pub(super) fn check_host(&self, parts: &Parts) -> Result<(), ServiceError> {
        if !self.keys.is_empty() {
            return Ok(());
        }
        let mut hosts = parts.headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default().parse().ok());
        let target = parts.uri.authority().map(|authority| Some(authority.clone()));
        let is_named = target.is_some() || parts.headers.contains_key(HOST);
        if is_named && target.into_iter().chain(&mut hosts).all(|host| host.is_some_and(|host| is_loopback(&host))) {
            return Ok(());
        }
        Err(invalid("Without credentials this server answers to localhost and loopback addresses only.".to_owned()))
    }

    /// Looks at everything that the head of a request says about who signed it. `None` when nobody has to.
    ///
    /// # Errors
    /// The answer to give, preferably once the body has been read to its end, so that the client gets to see it.
    pub(super) fn examine(&self, parts: &Parts, now: Timestamp) -> Result<Option<Claim>, ServiceError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let authorization = authorization_of(parts)?;
        let (time, moment) = time_of(parts, &authorization)?;
        for name in [HOST.as_str(), CONTENT_TYPE.as_str(), X_AMZ_TARGET] {
            let must = name == HOST.as_str() || parts.headers.contains_key(name);
            if must && !authorization.signs(name) {
                return Err(incomplete(format!("'{name}' must be one of the SignedHeaders.")));
            }
        }
        self.check_scope(&authorization, &time)?;
        check_skew(&time, moment, now)?;
        let body_hash = body_hash_of(parts)?;
        Ok(Some(Claim { authorization, time, body_hash }))
    }

    fn check_scope(&self, authorization: &Authorization, time: &str) -> Result<(), ServiceError> {
        let [day, region, service, end] = &authorization.scope;
        if !time.starts_with(day.as_str()) || day.len() != "YYYYMMDD".len() {
            let why = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.";
            return Err(invalid(why.to_owned()));
        }
        if *region != self.region {
            return Err(invalid(format!("Credential should be scoped to region '{}'.", self.region)));
        }
        if service != SERVICE {
            return Err(invalid(format!("Credential should be scoped to correct service: '{SERVICE}'.")));
        }
        if end != sigv4::SCOPE_END {
            return Err(invalid(format!(
                "Credential should be scoped with a valid terminator: '{}'.",
                sigv4::SCOPE_END
            )));
        }
        Ok(())
    }

    /// Whether a claim names a key of ours. Says nothing about its signature.
    pub(super) fn knows(&self, claim: &Claim) -> bool {
        self.key(&claim.authorization).is_some()
    }

    fn key(&self, authorization: &Authorization) -> Option<&AccessKey> {
        self.keys.iter().find(|key| key.id == authorization.key_id)
    }

    /// Checks the signature of a claim over the request as it was received.
    ///
    /// # Errors
    /// [`ServiceError::UnrecognizedClient`] for a key that nobody has, else [`ServiceError::InvalidSignature`].
    pub(super) fn verify(&self, claim: &Claim, parts: &Parts, body_hash: &[u8; 32]) -> Result<(), ServiceError> {
        if claim.body_hash.is_some_and(|claimed| claimed != *body_hash) {
            return Err(invalid("The body does not have the hash that x-amz-content-sha256 gives.".to_owned()));
        }
        let authorization = &claim.authorization;
        let known = self.key(authorization);
        let signed = sigv4::string_to_sign(parts, authorization, &claim.time, body_hash);
        let key = known.unwrap_or(&self.decoy).signing_key(&authorization.scope);
        let verdict = hmac::verify(&key, &signed, &authorization.signature);
        match (known, verdict) {
            (None, _) => Err(ServiceError::UnrecognizedClient),
            (Some(_), Ok(())) => Ok(()),
            (Some(_), Err(_)) => Err(invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details."
                    .to_owned(),
            )),
        }
    }
}

impl AccessKey {
    /// The signing key of a scope that was checked: region and service never change, so the day says which.
    fn signing_key(&self, [day, region, service, _]: &[String; 4]) -> hmac::Key {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        match &*derived {
            Some((of, key)) if of == day => key.clone(),
            _ => {
                let key = sigv4::signing_key(self.secret.expose(), day, region, service);
                *derived = Some((day.clone(), key.clone()));
                key
            }
        }
    }
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn authorization_of(parts: &Parts) -> Result<Authorization, ServiceError> {
    let presigned = |pair: &str| pair.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
    if parts.uri.query().unwrap_or_default().split('&').any(presigned) {
        return Err(incomplete("Signatures in the query string are not supported; sign with headers.".to_owned()));
    }
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) => return Err(ServiceError::MissingAuthenticationToken),
        (Some(_), Some(_)) => return Err(incomplete("There is more than one Authorization header.".to_owned())),
        (Some(header), None) => header.to_str().unwrap_or_default(),
    };
    Authorization::parse(header).map_err(|why| incomplete(why.to_owned()))
}

/// The time of the signature, as signed and as a moment: `X-Amz-Date`, or else `Date`.
fn time_of(parts: &Parts, authorization: &Authorization) -> Result<(String, jiff::Timestamp), ServiceError> {
    let name = if parts.headers.contains_key(X_AMZ_DATE) { X_AMZ_DATE } else { DATE.as_str() };
    let mut values = parts.headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(incomplete("The request requires one 'X-Amz-Date' or one 'Date' header.".to_owned()));
    };
    if !authorization.signs(name) {
        return Err(incomplete(format!("'{name}' must be one of the SignedHeaders.")));
    }
    let text = value.to_str().unwrap_or_default();
    if let Some(moment) = parse_basic(text) {
        return Ok((text.to_owned(), moment));
    }
    let moment = (name == DATE.as_str()).then(|| parse_http_date(text)).flatten();
    let moment = moment.ok_or_else(|| incomplete(format!("'{name}' must be a time such as 20150830T123600Z.")))?;
    Ok((basic(moment), moment))
}

/// `20150830T123600Z`, in exactly that form. By hand, because every request has one.
fn parse_basic(text: &str) -> Option<jiff::Timestamp> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let [y0, y1, y2, y3, m0, m1, d0, d1, b'T', h0, h1, i0, i1, s0, s1, b'Z'] = *bytes else { return None };
    let pair = |tens: u8, ones: u8| {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| i8::try_from((tens - b'0') * 10 + (ones - b'0')).ok()).flatten()
    };
    let year = 100 * i16::from(pair(y0, y1)?) + i16::from(pair(y2, y3)?);
    let day = jiff::civil::Date::new(year, pair(m0, m1)?, pair(d0, d1)?).ok()?;
    let time = jiff::civil::Time::new(pair(h0, h1)?, pair(i0, i1)?, pair(s0, s1)?, 0).ok()?;
    jiff::tz::Offset::UTC.to_timestamp(day.to_datetime(time)).ok()
}

fn parse_http_date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn basic(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn check_skew(time: &str, moment: jiff::Timestamp, now: Timestamp) -> Result<(), ServiceError> {
    let skew = i64::try_from(SKEW_MAX.as_millis()).unwrap_or(i64::MAX);
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let ahead = moment.as_millisecond().saturating_sub(now);
    if (-skew..=skew).contains(&ahead) {
        return Ok(());
    }
    let bound = if ahead < 0 { now.saturating_sub(skew) } else { now.saturating_add(skew) };
    let show = |millis| jiff::Timestamp::from_millisecond(millis).map(basic).unwrap_or_default();
    let (what, sign) = if ahead < 0 {
        ("Signature expired: {} is now earlier than", '-')
    } else {
        ("Signature not yet current: {} is still later than", '+')
    };
    Err(invalid(format!("{} {} ({} {sign} 5 min.)", what.replace("{}", time), show(bound), show(now))))
}

/// The hash that the client gives for the body; the one we take is always our own.
fn body_hash_of(parts: &Parts) -> Result<Option<[u8; 32]>, ServiceError> {
    let mut values = parts.headers.get_all(X_AMZ_CONTENT_SHA256).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str().ok().and_then(sigv4::parse_hex) {
            Some(hash) => Ok(Some(hash)),
            None => Err(incomplete(
                "x-amz-content-sha256 must be the SHA-256 of the body; unsigned and chunked payloads are not supported."
                    .to_owned(),
            )),
        },
        (Some(_), Some(_)) => Err(incomplete("There is more than one x-amz-content-sha256 header.".to_owned())),
    }
}

fn incomplete(why: String) -> ServiceError {
    ServiceError::IncompleteSignature(why)
}

fn invalid(why: String) -> ServiceError {
    ServiceError::InvalidSignature(why)
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
