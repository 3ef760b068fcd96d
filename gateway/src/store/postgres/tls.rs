//! TLS to PostgreSQL, by `sslmode` and `sslrootcert` of the URL.
//!
//! `require` is as strict as `verify-full` here: the certificate must be signed by a trusted authority and name the
//! host.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// A URL without its parameters of TLS, and the connector that they ask for.
pub(super) struct Url {
    pub(super) plain: String,
    /// The connector, if TLS is asked for.
    pub(super) tls: Option<MakeRustlsConnect>,
}

/// Reads the parameters of TLS, and the file that they name.
pub(super) fn read(url: &str) -> Result<Url, StoreError> {
    let Some((base, query)) = url.split_once('?') else { return Ok(Url { plain: url.to_owned(), tls: None }) };
    let (mut rest, mut wanted, mut file) = (Vec::new(), false, None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => wanted = true,
            Some(("sslrootcert", value)) => file = Some(decoded(value)),
            Some(_) | None => rest.push(pair),
        }
    }
    if wanted {
        rest.push("sslmode=require");
    } else if file.is_some() {
        return Err(StoreError::Failed("DATABASE_URL has sslrootcert without TLS; add sslmode=verify-full".into()));
    }
    let plain = format!("{base}?{}", rest.join("&"));
    let tls = if wanted { Some(connector(file.as_deref())?) } else { None };
    Ok(Url { plain, tls })
}

fn decoded(value: &str) -> String {
    // A plus sign stands for itself in such a URL.
    let pair = format!("v={}", value.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

fn connector(file: Option<&str>) -> Result<MakeRustlsConnect, StoreError> {
    let Some(file) = file else {
        let trusted = MakeRustlsConnect::with_native_certs();
        return trusted.map(|(connector, _)| connector).map_err(|_| {
            StoreError::Failed(
                "DATABASE_URL asks for TLS, but this machine trusts no certificate authority; name a PEM file with \
                 sslrootcert=<file>"
                    .into(),
            )
        });
    };
    let fault = |why: String| StoreError::Failed(format!("DATABASE_URL, sslrootcert {file}: {why}"));
    let text = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fault("there is no certificate in it; it must be a PEM file".into()));
    }
    Ok(MakeRustlsConnect::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_parameters_stay_as_they_are() {
        let url = read("postgres://u:p%3F@h/db?application_name=a%20b&sslmode=disable").expect("a right URL");
        assert_eq!(url.plain, "postgres://u:p%3F@h/db?application_name=a%20b&sslmode=disable");
        assert!(url.tls.is_none());
        assert_eq!(decoded("/etc/my%20ca+1.pem"), "/etc/my ca+1.pem");
    }

    #[test]
    fn a_file_without_tls_is_refused() {
        assert!(read("postgres://u@h/db?sslrootcert=/ca.pem").is_err());
    }
}
