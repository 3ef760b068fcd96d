//! Requests to the few URLs that the settings name.
//! It offers [`Endpoint`]: one URL, with a deadline and a bound on the answer.
//! It never follows a redirect, never uses a proxy, and never takes a URL from anything but the settings.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Connections that are kept for the next request, and for how long.
const IDLE_MAX: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// The largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A URL that requests go to. Cloning it is cheap.
#[derive(Clone)]
pub struct Endpoint {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    timeout: Duration,
    body_bytes_max: usize,
}

/// An endpoint's answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status; a redirect is one like any other.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer. Nothing of the request stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No whole answer within the time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The answer's body is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// There is no connection to be had.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended before the answer did.
    #[error("{0}")]
    Failed(String),
}

/// An endpoint that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// `https` without anything to check certificates against.
    #[error("this machine's trusted certificates can't be read: {0}")]
    Roots(std::io::Error),
}

impl Endpoint {
    /// An endpoint at `url`, whose answers may take `timeout` and have bodies of `body_bytes_max` at most.
    ///
    /// # Errors
    /// The URL is `https` and this machine trusts no certificate authority.
    pub fn new(url: Uri, timeout: Duration, body_bytes_max: usize) -> Result<Self, EndpointError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let https = url.scheme_str() == Some("https");
        let builder = if https {
            builder.with_provider_and_native_roots(provider).map_err(EndpointError::Roots)?.https_only()
        } else {
            let none = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| EndpointError::Roots(std::io::Error::other(error)))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(none).https_or_http()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(Self { client, url, timeout, body_bytes_max })
    }

    /// Where requests go.
    #[must_use]
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// GET.
    ///
    /// # Errors
    /// There was no whole answer in time and within the bound.
    pub async fn get(&self, headers: HeaderMap) -> Result<Answer, RequestError> {
        self.ask(Method::GET, headers, Bytes::new()).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// There was no whole answer in time and within the bound; the request may have been carried out all the same.
    pub async fn post_json(&self, mut headers: HeaderMap, body: Bytes) -> Result<Answer, RequestError> {
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        self.ask(Method::POST, headers, body).await
    }

    async fn ask(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Answer, RequestError> {
        let asked = tokio::time::timeout(self.timeout, self.exchange(method, headers, body)).await;
        asked.unwrap_or(Err(RequestError::TimedOut(self.timeout)))
    }

    async fn exchange(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Answer, RequestError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => RequestError::Unreachable(causes(&error)),
            false => RequestError::Failed(causes(&error)),
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.body_bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                RequestError::TooLarge(self.body_bytes_max)
            } else {
                RequestError::Failed(causes(&*error))
            }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// An error with what it came from: the crates' own texts say only that something failed.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every request of its first connections with these bytes, then keeps quiet.
    async fn server(answer: String) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        format!("http://{address}/path?x=1").parse().unwrap()
    }

    fn endpoint(url: Uri) -> Endpoint {
        Endpoint::new(url, Duration::from_secs(2), 1000).unwrap()
    }

    #[tokio::test]
    async fn answers_are_bounded_in_size_and_time() {
        let good = endpoint(server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".into()).await);
        for _ in 0..2 {
            let answer = good.post_json(HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap();
            assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"hi"[..]));
        }
        let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001));
        let answer = endpoint(server(large).await).get(HeaderMap::new()).await;
        assert_eq!(answer.err(), Some(RequestError::TooLarge(1000)));
        let chunk = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n", "x".repeat(1001));
        let answer = endpoint(server(chunk).await).get(HeaderMap::new()).await;
        assert_eq!(answer.err(), Some(RequestError::TooLarge(1000)));
        let never_ends = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi".into()).await;
        let hangs = Endpoint::new(never_ends, Duration::from_millis(200), 1000).unwrap();
        let answer = hangs.get(HeaderMap::new()).await;
        assert_eq!(answer.err(), Some(RequestError::TimedOut(Duration::from_millis(200))));
    }

    #[tokio::test]
    async fn redirects_are_not_followed_and_nonsense_is_no_answer() {
        let elsewhere =
            server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into());
        let answer = endpoint(elsewhere.await).get(HeaderMap::new()).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
        let answer = endpoint(server("nonsense\r\n\r\n".into()).await).get(HeaderMap::new()).await;
        assert!(matches!(answer, Err(RequestError::Failed(_))), "{answer:?}");
        let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
        let answer = endpoint(server(endless_head).await).get(HeaderMap::new()).await;
        assert!(matches!(answer, Err(RequestError::Failed(_) | RequestError::TimedOut(_))), "{answer:?}");
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let answer = endpoint(format!("http://{nobody}/").parse().unwrap()).get(HeaderMap::new()).await;
        assert!(matches!(&answer, Err(RequestError::Unreachable(why)) if why.contains("refused")), "{answer:?}");
    }
}
