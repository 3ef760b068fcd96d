//! The bytes of a subscribing connection that is kept by hand: TCP, or TLS over it.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use redis::{ErrorKind, RedisError, RedisResult};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::backbone::BackboneError;

/// Whom to believe about a server.
#[derive(Clone)]
pub(in crate::backbone::redis) struct Tls(TlsConnector);

/// A connection's bytes.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Tls {
    /// The authorities in `file`, or those that this machine trusts.
    pub(in crate::backbone::redis) fn new(file: Option<&Path>) -> Result<Self, BackboneError> {
        let builder = ClientConfig::builder();
        let config = match file {
            Some(file) => {
                let fault = |why: String| BackboneError(format!("REDIS_CA_FILE {}: {why}", file.display()));
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| fault(error.to_string()))? {
                    let certificate = certificate.map_err(|error| fault(error.to_string()))?;
                    roots.add(certificate).map_err(|error| fault(error.to_string()))?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_native_roots().map_err(|error| BackboneError(error.to_string()))?,
        };
        Ok(Self(TlsConnector::from(Arc::new(config.with_no_client_auth()))))
    }
}

/// Connects.
pub(super) async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> RedisResult<Box<dyn Wire>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(Tls(connector)) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| RedisError::from((ErrorKind::InvalidClientConfig, "no certificate can name this host")))?;
    Ok(Box::new(connector.connect(name, stream).await?))
}
