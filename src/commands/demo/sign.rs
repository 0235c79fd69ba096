//! Signature Version 4 of one request: what every AWS SDK does, in the one shape that the demo needs.
//!
//! In: the request's headers and body, the keys and the time. Out: the value of its `authorization` header. Pure.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;

const SERVICE: &str = "firehose";

/// Who signs, and for where.
pub(super) struct Signer<'a> {
    /// The public half of the key.
    pub(super) access_key_id: &'a str,
    /// Its secret half.
    pub(super) secret: &'a str,
    /// The region of the server.
    pub(super) region: &'a str,
}

impl Signer<'_> {
    /// The `authorization` header of a `POST /`. `headers` are all that are signed: lower-case names, in order,
    /// `x-amz-date` among them with the value `moment` (`20261121T120000Z`).
    pub(super) fn authorization(&self, headers: &[(&str, &str)], moment: &str, body: &[u8]) -> String {
        let day = moment.get(..8).unwrap_or(moment);
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", self.region);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines = headers.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
        let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", hex(digest(&SHA256, body).as_ref()));
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
        let signature = hex(mac(self.key(day).as_ref(), &to_sign).as_ref());
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        )
    }

    /// The key of a day: the secret, bound to day, region and service.
    fn key(&self, day: &str) -> hmac::Tag {
        let of_day = mac(format!("AWS4{}", self.secret).as_bytes(), day);
        let of_region = mac(of_day.as_ref(), self.region);
        mac(mac(of_region.as_ref(), SERVICE).as_ref(), "aws4_request")
    }
}

fn mac(key: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String never fails.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;

    use super::*;

    #[test]
    fn a_request_is_signed_as_the_sdk_signs_it() {
        let body = br#"{"DeliveryStreamName":"web"}"#;
        let identity = Credentials::new("demo", "a secret/with+signs", None, None, "test").into();
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_262_423_456);
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-west-1")
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let plain = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", "127.0.0.1:4573"),
            ("x-amz-target", "Firehose_20150804.PutRecordBatch"),
        ];
        let request =
            SignableRequest::new("POST", "http://127.0.0.1:4573/", plain.into_iter(), SignableBody::Bytes(body));
        let (instructions, _) = sign(request.unwrap(), &parameters).unwrap().into_parts();
        let header =
            |name| instructions.headers().find(|(header, _)| *header == name).map(|(_, value)| value.to_owned());
        let moment = header("x-amz-date").unwrap();

        let signer = Signer { access_key_id: "demo", secret: "a secret/with+signs", region: "eu-west-1" };
        let headers = [plain[0], plain[1], ("x-amz-date", moment.as_str()), plain[2]];
        assert_eq!(signer.authorization(&headers, &moment, body), header("authorization").unwrap());
    }
}
