//! The bytes of the subscribing connection: TCP, or TLS over it.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use redis::{ConnectionAddr, ErrorKind, RedisError, RedisResult};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::backbone::BackboneError;

/// The authorities that may sign a server's certificate.
#[derive(Clone)]
pub(in crate::backbone::redis) struct Tls(TlsConnector);

/// A connection's bytes.
pub(in crate::backbone::redis) trait Transport:
    AsyncRead + AsyncWrite + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

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

/// Connects; `tls` has the trusted authorities for an encrypted server.
pub(in crate::backbone::redis) async fn connect(
    address: &ConnectionAddr,
    tls: Option<&Tls>,
) -> RedisResult<Box<dyn Transport>> {
    match address {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let Tls(connector) =
                tls.ok_or_else(|| fault("the connection is encrypted, but no trusted authorities are loaded"))?;
            let name = ServerName::try_from(host.clone())
                .map_err(|_| fault("the host is not a name that a certificate can contain"))?;
            Ok(Box::new(connector.connect(name, tcp(host, *port).await?).await?))
        }
        _ => Err(fault("the address is not a host and a port")),
    }
}

async fn tcp(host: &str, port: u16) -> RedisResult<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn fault(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, what))
}
