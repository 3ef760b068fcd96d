//! A certificate authority of a test's own, made with the openssl command.

use std::path::PathBuf;
use std::process::{Command, Stdio};

const SETTINGS: &str = "\
[req]
distinguished_name = none
[none]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1
";

/// The authority, and a certificate of it for a server at 127.0.0.1 and nowhere else.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(authority.file("settings"), SETTINGS).expect("openssl's settings are written");
        authority.make("authority", &[]);
        authority.make("server", &["-CA", "authority.pem", "-CAkey", "authority.key"]);
        authority
    }

    /// `authority.pem`, `server.pem` or `server.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("it was made")
    }

    fn make(&self, name: &str, signed: &[&str]) {
        let status = Command::new("openssl")
            .args(["req", "-x509", "-config", "settings", "-extensions", name, "-days", "2", "-nodes"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(signed)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl is installed").success(), "openssl makes a certificate for {name}");
    }
}
