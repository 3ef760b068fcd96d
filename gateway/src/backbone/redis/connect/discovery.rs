//! The address of Redis: one server that the settings name, or the current master according to the Sentinels.

use std::path::Path;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult, TlsCertificates,
};

use super::rights;
use super::sentinel::{SentinelMaster, Sentinels};
use super::transport::Tls;
use crate::backbone::BackboneError;
use crate::backbone::redis::cluster::Seeds;

const PEM_BEGINS: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How the URL of Sentinels begins, and that of a server which is spoken to as they and their master are.
const SENTINEL_SCHEMES: [(&str, &str); 2] = [("redis-sentinel://", "redis://"), ("rediss-sentinel://", "rediss://")];

/// Where the settings say that Redis is.
pub struct Address<'a> {
    url: &'a str,
    /// A PEM file with the authorities that may sign the certificates of `rediss://` servers and Sentinels, instead of those
    /// that this machine trusts.
    ca_file: Option<&'a Path>,
}

/// The same, read.
pub(in crate::backbone::redis) enum Target {
    One(Box<Servers>),
    Cluster(Seeds),
}

/// One server, or the Sentinels that name it.
pub(in crate::backbone::redis) struct Servers {
    /// How to connect: user, password, database, and the address unless Sentinels tell it.
    server: ConnectionInfo,
    /// The trusted authorities for our own connections, if they are encrypted; the crate's connections have theirs.
    tls: Option<Tls>,
    sentinels: Option<Sentinels>,
}

/// The server to connect to now.
pub(in crate::backbone::redis) struct Discovery {
    pub(in crate::backbone::redis) client: Client,
    /// The answers of the Sentinels, if there are any.
    named: Option<SentinelMaster>,
}

impl Target {
    /// Reads the URL; connects to nothing.
    pub(in crate::backbone::redis) fn parse(address: Address<'_>) -> Result<Self, BackboneError> {
        let of_sentinels = |(begin, scheme)| Some((scheme, address.url.strip_prefix(begin)?));
        match SENTINEL_SCHEMES.into_iter().find_map(of_sentinels) {
            Some((scheme, rest)) => {
                Servers::of_sentinels(scheme, rest, address.ca_file).map(|servers| Self::One(Box::new(servers)))
            }
            None if several(address.url).nth(1).is_some() => seeds(&address).map(Self::Cluster),
            None => {
                let server = server(address.url, address.ca_file)?;
                let tls = tls(&server, address.ca_file)?;
                Ok(Self::One(Box::new(Servers::at(server, tls))))
            }
        }
    }

    /// For people.
    pub(in crate::backbone::redis) fn describe(&self) -> String {
        match self {
            Self::One(servers) => servers.describe(),
            Self::Cluster(seeds) => seeds.describe(),
        }
    }
}

impl Servers {
    /// One server.
    pub(in crate::backbone::redis) fn at(server: ConnectionInfo, tls: Option<Tls>) -> Self {
        Self { server, tls, sentinels: None }
    }

    /// The trusted authorities, if the connections are encrypted.
    pub(in crate::backbone::redis) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn of_sentinels(scheme: &str, rest: &str, ca_file: Option<&Path>) -> Result<Self, BackboneError> {
        let (credentials, rest) = rest.rsplit_once('@').map_or((None, rest), |(before, rest)| (Some(before), rest));
        let invalid = || BackboneError("REDIS_URL must look like redis-sentinel://host:port,host:port/name".to_owned());
        let (hosts, path) = rest.split_once('/').ok_or_else(invalid)?;
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() || hosts.split(',').any(str::is_empty) || name.contains(['?', '#']) {
            return Err(invalid());
        }
        let with = |credentials: Option<&str>, host: &str, database: &str| {
            let credentials = credentials.map_or(String::new(), |credentials| format!("{credentials}@"));
            server(&format!("{scheme}{credentials}{}/{database}", with_port(host)), ca_file)
        };
        let mut sentinels = Vec::new();
        for host in hosts.split(',') {
            let locked = credentials.map(|credentials| with(Some(credentials), host, "")).transpose()?;
            sentinels.push((with(None, host, "")?, locked));
        }
        let any = hosts.split(',').next().unwrap_or_default();
        let server = with(credentials, any, database)?;
        Ok(Self { tls: tls(&server, ca_file)?, server, sentinels: Some(Sentinels::new(name.to_owned(), sentinels)) })
    }

    /// For people.
    pub(in crate::backbone::redis) fn describe(&self) -> String {
        match &self.sentinels {
            Some(sentinels) => format!("Redis, {}", sentinels.describe()),
            None => format!("Redis at {}", self.server.addr()),
        }
    }

    /// The server to connect to now. Whether it is a master it has to say itself.
    pub(in crate::backbone::redis) async fn find(&self) -> RedisResult<Discovery> {
        let Some(sentinels) = &self.sentinels else {
            return Ok(Discovery { client: Client::open(self.server.clone())?, named: None });
        };
        let named = sentinels.master().await?;
        let mut address = self.server.addr().clone();
        match &mut address {
            ConnectionAddr::TcpTls { host, port, .. } => (*host, *port) = (named.host.clone(), named.port),
            _ => address = ConnectionAddr::Tcp(named.host.clone(), named.port),
        }
        Ok(Discovery { client: Client::open(self.server.clone().set_addr(address))?, named: Some(named) })
    }

    /// Waits until the Sentinels name another server; for ever where there are none.
    pub(in crate::backbone::redis) async fn moved(&self, from: Option<&SentinelMaster>) {
        match (&self.sentinels, from) {
            (Some(sentinels), Some(from)) => sentinels.moved(from).await,
            _ => std::future::pending().await,
        }
    }
}

impl<'a> From<&'a str> for Address<'a> {
    fn from(url: &'a str) -> Self {
        Self { url, ca_file: None }
    }
}

impl<'a> From<&'a String> for Address<'a> {
    fn from(url: &'a String) -> Self {
        url.as_str().into()
    }
}

impl<'a> From<(&'a str, Option<&'a Path>)> for Address<'a> {
    fn from((url, ca_file): (&'a str, Option<&'a Path>)) -> Self {
        Self { url, ca_file }
    }
}

impl Discovery {
    pub(in crate::backbone::redis) fn named(&self) -> Option<&SentinelMaster> {
        self.named.as_ref()
    }
}

/// Adds to a fault what would be right, if that is known.
pub(in crate::backbone::redis) fn explain(why: String) -> String {
    if why.contains(rights::FAULT) {
        // It says itself what to do.
        why
    } else if why.contains("NOPERM") || why.contains("no permissions") {
        format!("{why}; {}", rights::advice("+<the command>"))
    } else if why.contains("unknown command") {
        format!("{why}; {}", rights::NAME_THE_SERVER)
    } else if why.contains("certificate") {
        format!(
            "{why}; the server's certificate must name the host in REDIS_URL (with Sentinels: the host that they return for \
             the master), and be signed by an authority in REDIS_CA_FILE, or by one that this machine trusts"
        )
    } else if ["WRONGPASS", "NOAUTH", "invalid password", "AuthenticationFailed", "Password authentication failed"]
        .iter()
        .any(|sign| why.contains(sign))
    {
        format!("{why}; check the user and the password in REDIS_URL. {ENCODE}")
    } else {
        format!("{why}; is Redis running there?")
    }
}

/// How a user and a password stand in a URL.
const ENCODE: &str = "There, any character of theirs but letters, digits and - . _ ~ must be percent-encoded (% as %25, / as \
    %2F, @ as %40, # as %23, ? as %3F, : as %3A, + as %2B)";

/// Whether a user or a password holds a character that ends the part of a URL in which they stand.
fn is_login_cut_short(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?', '#']).is_some_and(|end| rest.get(end..).is_some_and(|rest| rest.contains('@')))
}

/// The URLs of several servers. A comma that no URL follows belongs to a password.
fn several(urls: &str) -> impl Iterator<Item = &str> {
    let begins = |at: &usize| {
        let rest = urls.get(*at..).unwrap_or_default();
        rest.starts_with("redis://") || rest.starts_with("rediss://")
    };
    let mut from = 0;
    let mut ends = urls.match_indices(',').map(|(at, _)| at + 1).filter(begins).collect::<Vec<_>>().into_iter();
    std::iter::from_fn(move || {
        if from > urls.len() {
            return None;
        }
        let next = ends.next().unwrap_or(urls.len() + 1);
        let url = urls.get(from..next - 1);
        from = next;
        url
    })
}

/// Servers of one Cluster: its others are found through them, and entered with the same user and password.
fn seeds(address: &Address<'_>) -> Result<Seeds, BackboneError> {
    let differ =
        |what: &str| BackboneError(format!("the servers of a Redis Cluster must have the same {what} in REDIS_URL"));
    let mut servers = Vec::new();
    for url in several(address.url) {
        let info = server(url, address.ca_file)?;
        if info.redis_settings().db() != 0 {
            return Err(BackboneError("a Redis Cluster has only database 0; name no database in REDIS_URL".to_owned()));
        }
        servers.push(info);
    }
    let login = |info: &ConnectionInfo| {
        let settings = info.redis_settings();
        (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
    };
    if servers.windows(2).any(|pair| matches!(pair, [one, other] if is_tls(one) != is_tls(other))) {
        return Err(differ("scheme, redis:// or rediss://,"));
    }
    if servers.windows(2).any(|pair| matches!(pair, [one, other] if login(one) != login(other))) {
        return Err(differ("user and password"));
    }
    let tls = servers.first().map_or(Ok(None), |server| tls(server, address.ca_file))?;
    Ok(Seeds { servers, tls })
}

fn is_tls(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { .. })
}

fn tls(server: &ConnectionInfo, ca_file: Option<&Path>) -> Result<Option<Tls>, BackboneError> {
    is_tls(server).then(|| Tls::new(ca_file)).transpose()
}

fn with_authorities(info: ConnectionInfo, file: Option<&Path>) -> Result<ConnectionInfo, BackboneError> {
    let Some(file) = file else { return Ok(info) };
    let fault = |why: String| BackboneError(format!("REDIS_CA_FILE {}: {why}", file.display()));
    let authorities = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
    if !authorities.windows(PEM_BEGINS.len()).any(|part| part == PEM_BEGINS) {
        return Err(fault("there is no certificate in it; it must be a PEM file".to_owned()));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
    let client = Client::build_with_tls(info, certificates).map_err(|error| fault(error.to_string()))?;
    Ok(client.get_connection_info().clone())
}

fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port && !host.ends_with(']') { host.to_owned() } else { format!("{host}:26379") }
}

fn server(url: &str, ca_file: Option<&Path>) -> Result<ConnectionInfo, BackboneError> {
    if is_login_cut_short(url) {
        return Err(BackboneError(format!("the user or the password in REDIS_URL is not percent-encoded. {ENCODE}")));
    }
    // The crate's message repeats the URL's parts, and a password must not be logged.
    let info = url.into_connection_info().map_err(|_| {
        BackboneError("REDIS_URL is invalid; it must look like redis://[user:password@]host:port[/database]".to_owned())
    })?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    let tcp =
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(Duration::from_secs(10));
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    with_authorities(info.set_tcp_settings(tcp).set_redis_settings(redis), ca_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_sentinels_is_read() {
        let target = Target::parse("redis-sentinel://me:p%40ss@one:1,[::1],two/chat/3".into()).expect("a right URL");
        let Target::One(servers) = target else { panic!("one master") };
        assert_eq!(servers.server.redis_settings().password(), Some("p@ss"));
        assert_eq!(servers.server.redis_settings().username(), Some("me"));
        assert_eq!(servers.server.redis_settings().db(), 3);
        let expected = "Redis, the master \"chat\" of the Sentinels at one:1, ::1:26379, two:26379";
        assert_eq!(servers.describe(), expected);
        assert!(matches!(servers.server.addr(), ConnectionAddr::Tcp(..)), "{:?}", servers.server.addr());
    }

    #[test]
    fn sentinels_are_spoken_to_over_tls() {
        let target = Target::parse("rediss-sentinel://one,two:2/chat".into()).expect("a right URL");
        let Target::One(servers) = target else { panic!("one master") };
        let encrypted = matches!(servers.server.addr(), ConnectionAddr::TcpTls { insecure: false, .. });
        assert!(encrypted, "{:?}", servers.server.addr());
        assert_eq!(servers.describe(), "Redis, the master \"chat\" of the Sentinels at one:26379, two:2");
    }

    #[test]
    fn several_urls_are_those_of_a_cluster() {
        let urls = "redis://:a,b@one:1,redis://:a,b@two:2";
        assert_eq!(several(urls).collect::<Vec<_>>(), ["redis://:a,b@one:1", "redis://:a,b@two:2"]);
        let target = Target::parse(urls.into()).expect("right URLs");
        assert_eq!(target.describe(), "the Redis Cluster of one:1, two:2");
        assert!(matches!(Target::parse("redis://:a,b@one:1".into()), Ok(Target::One(_))));
    }

    #[test]
    fn a_password_that_is_not_encoded_is_told_as_that() {
        for url in [
            "redis://:se/cret@a:1",
            "redis://:se#cret@a:1",
            "redis://:se?cret@a:1",
            "redis://me:12/cret@a:1/0",
            "redis://me:12?cret@a:1",
            "rediss://:se/cret@a,rediss://:se/cret@b",
            "redis-sentinel://:se/cret@a,b/name",
            "redis-sentinel://:se#cret@a,b/name",
        ] {
            let why = Target::parse(url.into()).err().unwrap_or_else(|| panic!("{url} is wrong")).to_string();
            assert!(why.contains("percent-encoded") && why.contains("%2F"), "{url}: {why}");
            assert!(!why.contains("cret"), "{why}");
        }
        for url in ["redis://:se%2Fcret@a:1", "redis://me:p@ss@a:1/0", "redis://a:1/0?protocol=resp3"] {
            assert!(Target::parse(url.into()).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "redis-sentinel://:secret@a,b",
            "redis-sentinel://:secret@a,,b/n",
            "redis-sentinel://:secret@a/",
            "rediss-sentinel://:secret@a/",
            "redis://:secret@",
            "redis://:secret@a,redis://b",
            "redis://:secret@a,rediss://:secret@b",
            "redis://:secret@a/1,redis://:secret@b/1",
        ] {
            let why = Target::parse(url.into()).err().unwrap_or_else(|| panic!("{url} is wrong")).to_string();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
