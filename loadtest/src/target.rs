//! The address of a deployment, source addresses, and tokens. Nothing connects here.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use shared::UserId;

use crate::speech::Speech;

/// Where a node serves streams of events.
const EVENTS_PATH: &str = "/api/v1/events";
/// The offer of compression. Parley's answer keeps no context, and that of a peer is up to the peer.
const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";

/// The arguments of every mode about the deployment.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// A node or load balancer, `ws://host:port`; the path is /chat/ws (or the peer's own) unless given. May be repeated.
    #[arg(long = "url", required = true, value_name = "WS_URL")]
    pub urls: Vec<String>,
    /// The secret that HS256 tokens are signed with.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
    /// A file with one token per line, instead of the secret.
    #[arg(long, conflicts_with = "jwt_secret", value_name = "FILE")]
    pub tokens: Option<std::path::PathBuf>,
    /// User ids are this prefix and a number from 0.
    #[arg(long, default_value = "u", value_name = "PREFIX")]
    pub user_prefix: String,
    /// How long a signed token is good, in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub token_seconds: u64,
    /// How the token travels.
    #[arg(long, value_enum, default_value_t = TokenPlace::Header)]
    pub token_in: TokenPlace,
    /// The frames to use; the oracle uses Parley's only.
    #[arg(long, value_enum, default_value_t)]
    pub speak: Speech,
    /// Offer compression (permessage-deflate). Only what the server sends is compressed.
    #[arg(long)]
    pub deflate: bool,
    /// A local address to connect from; may be repeated (each gives some 28,000 ports).
    #[arg(long = "source", value_name = "IP")]
    pub sources: Vec<IpAddr>,
}

/// Where the token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenPlace {
    /// `Authorization: Bearer`
    Header,
    /// `?token=`
    Query,
}

/// A deployment, ready to be connected to.
#[derive(Debug)]
pub struct Target {
    nodes: Vec<Node>,
    tokens: Tokens,
    token_in: TokenPlace,
    speech: Speech,
    deflate: bool,
    sources: Vec<IpAddr>,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    path: String,
}

/// One request for a connection.
#[derive(Debug)]
pub struct Dial {
    /// Where to.
    pub address: SocketAddr,
    /// Where from, if that matters.
    pub source: Option<IpAddr>,
    /// The request's path and query.
    pub path_and_query: String,
    /// Header lines, each with its line end.
    pub headers: String,
}

impl Target {
    /// Reads the arguments.
    ///
    /// # Errors
    /// An address that can't be resolved or isn't `ws://`, a token file that can't be read, no tokens at all.
    pub fn new(args: &TargetArgs) -> Result<Self> {
        let nodes = args.urls.iter().map(|url| Node::parse(url, args.speak)).collect::<Result<Vec<_>>>()?;
        if nodes.is_empty() {
            bail!("--url is needed");
        }
        let tokens = Tokens::new(args)?;
        let (token_in, speech, deflate, sources) = (args.token_in, args.speak, args.deflate, args.sources.clone());
        Ok(Self { nodes, tokens, token_in, speech, deflate, sources })
    }

    /// The frames to use.
    #[must_use]
    pub fn speech(&self) -> Speech {
        self.speech
    }

    /// For what only Parley can be asked.
    ///
    /// # Errors
    /// Somebody else's frames are spoken.
    pub fn only_parley(&self) -> Result<()> {
        if self.speech == Speech::Parley { Ok(()) } else { bail!("this mode supports Parley's frames only") }
    }

    /// The request by which connection number `connection` reaches node number `node` (both wrap around) as a user,
    /// with `resume` (`epoch:seq`) if given.
    #[must_use]
    pub fn dial(&self, node: usize, connection: usize, token: &str, resume: Option<&str>) -> Dial {
        let path = self.nodes.get(node % self.nodes.len().max(1)).map(|node| node.path.as_str());
        let mut dial = self.ask(node, connection, token, path.unwrap_or_default());
        if self.deflate {
            dial.headers.push_str(DEFLATE);
        }
        if let Some(position) = resume {
            dial.path_and_query.push(if dial.path_and_query.contains('?') { '&' } else { '?' });
            dial.path_and_query.push_str(&format!("resume={position}"));
        }
        dial
    }

    /// The request by which this connection becomes a stream of events that goes on behind `last_id`, if given.
    #[must_use]
    pub fn dial_stream(&self, node: usize, connection: usize, token: &str, last_id: Option<&str>) -> Dial {
        let mut dial = self.ask(node, connection, token, EVENTS_PATH);
        if let Some(id) = last_id {
            dial.headers.push_str(&format!("Last-Event-ID: {id}\r\n"));
        }
        dial
    }

    /// A request for this path, with the token.
    fn ask(&self, node: usize, connection: usize, token: &str, path: &str) -> Dial {
        let node = self.nodes.get(node % self.nodes.len().max(1));
        let address = node.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |node| node.address);
        let source = self.sources.get(connection % self.sources.len().max(1)).copied();
        let (path_and_query, headers) = match self.token_in {
            TokenPlace::Header => (path.to_owned(), format!("Authorization: Bearer {token}\r\n")),
            TokenPlace::Query => {
                let separator = if path.contains('?') { '&' } else { '?' };
                (format!("{path}{separator}token={token}"), String::new())
            }
        };
        Dial { address, source, path_and_query, headers }
    }

    /// The user with this number, and a fresh token for them.
    ///
    /// # Errors
    /// A signing key that doesn't sign, or more users than the token file has lines.
    pub fn user(&self, number: usize) -> Result<(UserId, String)> {
        self.tokens.user(number)
    }
}

impl Node {
    fn parse(url: &str, speech: Speech) -> Result<Self> {
        let Some(rest) = url.strip_prefix("ws://") else {
            bail!("{url}: only ws:// is supported; for wss:// put the driver behind the TLS proxy");
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = if path.is_empty() { speech.path().to_owned() } else { format!("/{path}") };
        Ok(Self { address: resolve(authority)?, path })
    }
}

/// Resolves `host` or `host:port` (80 without a port), IPv4 first.
///
/// # Errors
/// A name that can't be resolved.
pub fn resolve(authority: &str) -> Result<SocketAddr> {
    let with_port = if authority.parse::<SocketAddr>().is_ok() || authority.rsplit_once(':').is_some() {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut addresses: Vec<_> =
        with_port.to_socket_addrs().with_context(|| format!("can't resolve {authority}"))?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied().with_context(|| format!("no address for {authority}"))
}

enum Tokens {
    Secret { key: Box<EncodingKey>, prefix: String, seconds: u64 },
    File(Vec<(UserId, String)>),
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Tokens {
    fn new(args: &TargetArgs) -> Result<Self> {
        if let Some(path) = &args.tokens {
            let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
            let tokens = text.lines().map(str::trim).filter(|line| !line.is_empty());
            return Ok(Self::File(tokens.map(|token| Ok((user_of(token)?, token.to_owned()))).collect::<Result<_>>()?));
        }
        let secret = args.jwt_secret.as_deref().context("--jwt-secret or --tokens is needed")?;
        let key = Box::new(EncodingKey::from_secret(secret.as_bytes()));
        Ok(Self::Secret { key, prefix: args.user_prefix.clone(), seconds: args.token_seconds })
    }

    fn user(&self, number: usize) -> Result<(UserId, String)> {
        match self {
            Self::Secret { key, prefix, seconds } => {
                let user =
                    UserId::parse(&format!("{prefix}{number}")).context("--user-prefix gives an invalid user id")?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                let claims = serde_json::json!({ "sub": user, "iat": now, "exp": now + seconds });
                Ok((user, jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key)?))
            }
            Self::File(tokens) => {
                let lines = tokens.len();
                tokens
                    .get(number)
                    .cloned()
                    .with_context(|| format!("the token file has {lines} lines, but user {number} is needed"))
            }
        }
    }
}

/// A token's user: its `sub`, `user_id`, `userId` or `id`. Only the server checks the signature.
fn user_of(token: &str) -> Result<UserId> {
    let payload = token.split('.').nth(1).context("a line of the token file is not a JWT")?;
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    let claim = ["sub", "user_id", "userId", "id"].into_iter().find_map(|name| claims.get(name));
    let id = match claim {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        Some(_) | None => bail!("a token in the file has no user"),
    };
    UserId::parse(&id).context("a token in the file has an invalid user id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        let args = TargetArgs {
            urls: vec![url.to_owned()],
            jwt_secret: Some("s".repeat(32)),
            tokens: None,
            user_prefix: "u".into(),
            token_seconds: 60,
            token_in: TokenPlace::Query,
            speak: Speech::Parley,
            deflate: false,
            sources: Vec::new(),
        };
        Target::new(&args).expect("a target")
    }

    #[test]
    fn the_canonical_path_is_the_default_and_a_resume_travels_behind_the_token() {
        let dial = target("ws://127.0.0.1:8086").dial(3, 0, "t", Some("e:4"));
        assert_eq!(dial.path_and_query, "/chat/ws?token=t&resume=e:4");
        assert_eq!(dial.address.port(), 8086);
        assert_eq!(target("ws://127.0.0.1:1/x").dial(0, 0, "t", None).path_and_query, "/x?token=t");
    }

    #[test]
    fn a_stream_has_its_own_path_and_names_its_last_event_in_a_header() {
        let dial = target("ws://127.0.0.1:1/x").dial_stream(0, 0, "t", Some("e:4"));
        assert_eq!((&*dial.path_and_query, &*dial.headers), ("/api/v1/events?token=t", "Last-Event-ID: e:4\r\n"));
    }

    #[test]
    fn a_signed_token_names_its_user() {
        let (user, token) = target("ws://127.0.0.1:1").user(7).expect("a user");
        assert_eq!((user.as_str(), user_of(&token).expect("claims")), ("u7", user.clone()));
    }
}
