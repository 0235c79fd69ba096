//! The client of the demo: signed `PutRecordBatch` calls over one connection, as an SDK makes them.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::folder::{ACCESS_KEY_ID, Folder, REGION, STREAM};
use super::sign::Signer;

const TARGET: &str = "Firehose_20150804.PutRecordBatch";
const JSON: &str = "application/x-amz-json-1.1";

/// How long an answer may take before the connection is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Largest answer that is read: 500 entries of some 200 bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How often records that the server asked to send again are sent again.
const ATTEMPTS_MAX: u32 = 50;

/// How long the client waits before it does.
const SLOW_DOWN: Duration = Duration::from_millis(100);

/// Why records were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    /// The connection does not open or broke.
    #[error("connection to the server")]
    Connection(#[source] hyper::Error),
    /// The server cannot be reached.
    #[error("connect to the server")]
    Unreachable(#[source] std::io::Error),
    /// No answer came in time.
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    TimedOut,
    /// The answer is not what an SDK understands.
    #[error("answer {status}: {body}")]
    Answer {
        /// Its status.
        status: StatusCode,
        /// Its text.
        body: String,
    },
    /// The server asked to slow down too often.
    #[error("the server asks to slow down, {ATTEMPTS_MAX} times in a row")]
    Busy,
}

/// A connection to the server.
struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, PutError> {
        let stream = TcpStream::connect(address).await.map_err(PutError::Unreachable)?;
        stream.set_nodelay(true).map_err(PutError::Unreachable)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(PutError::Connection)?;
        Ok(Self { requests, driver: tokio::spawn(connection) })
    }

    /// Sends a request and reads its answer.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), PutError> {
        let answer = timeout(ANSWER_WITHIN, async {
            self.requests.ready().await.map_err(PutError::Connection)?;
            let response = self.requests.send_request(request).await.map_err(PutError::Connection)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| PutError::Answer { status, body: error.to_string() })?;
            Ok((status, body.to_bytes()))
        });
        answer.await.unwrap_or(Err(PutError::TimedOut))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Puts batches of records.
pub(super) struct Client<'a> {
    connection: Connection,
    host: String,
    signer: Signer<'a>,
}

#[derive(Serialize)]
struct PutRecordBatch<'a> {
    #[serde(rename = "DeliveryStreamName")]
    stream: &'a str,
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Serialize)]
struct Record {
    #[serde(rename = "Data")]
    data: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "RequestResponses")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "RecordId")]
    id: Option<String>,
}

impl<'a> Client<'a> {
    /// Connects to the server at `address` with the keys of `folder`.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) async fn connect(folder: &'a Folder, address: SocketAddr) -> Result<Self, PutError> {
        let signer = Signer { access_key_id: ACCESS_KEY_ID, secret: folder.secret(), region: REGION };
        Ok(Self { connection: Connection::open(address).await?, host: address.to_string(), signer })
    }

    /// Puts records, those again that the server asks to send again. Each of them is on disk when this returns.
    ///
    /// # Errors
    /// See [`PutError`].
    pub(super) async fn put(&mut self, mut records: Vec<String>) -> Result<(), PutError> {
        for _ in 0..ATTEMPTS_MAX {
            let (status, body) = self.connection.send(self.request(&records)).await?;
            let answer = || PutError::Answer { status, body: String::from_utf8_lossy(&body).into_owned() };
            if status.is_success() {
                let entries = serde_json::from_slice::<Answer>(&body).map_err(|_| answer())?.entries;
                if entries.len() != records.len() {
                    return Err(answer());
                }
                let mut entries = entries.iter();
                records.retain(|_| entries.next().is_some_and(|entry| entry.id.is_none()));
            } else if status != StatusCode::INTERNAL_SERVER_ERROR {
                return Err(answer());
            }
            if records.is_empty() {
                return Ok(());
            }
            sleep(SLOW_DOWN).await;
        }
        Err(PutError::Busy)
    }

    fn request(&self, records: &[String]) -> Request<Full<Bytes>> {
        let data = |record: &String| Record { data: base64_simd::STANDARD.encode_to_string(record) };
        let batch = PutRecordBatch { stream: STREAM, records: records.iter().map(data).collect() };
        // Strings in strings always serialise.
        let body = serde_json::to_vec(&batch).unwrap_or_default();
        let moment = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let signed = [
            (CONTENT_TYPE.as_str(), JSON),
            (HOST.as_str(), &self.host),
            ("x-amz-date", &moment),
            ("x-amz-target", TARGET),
        ];
        let authorization = self.signer.authorization(&signed, &moment, &body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = http::Method::POST;
        for (name, value) in signed.into_iter().chain([(AUTHORIZATION.as_str(), authorization.as_str())]) {
            if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::try_from(value)) {
                request.headers_mut().insert(name, value);
            }
        }
        request
    }
}
