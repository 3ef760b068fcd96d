//! Tokens: where they may stand, which algorithms are accepted, and which are refused.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::get;
use crate::support::node::{Node, SECRET, in_seconds, token, token_with};

/// Signs with any algorithm.
fn signed(algorithm: Algorithm, key: &EncodingKey) -> String {
    let claims = json!({ "sub": "a", "exp": in_seconds(60) });
    encode(&Header::new(algorithm), &claims, key).expect("claims can be signed")
}

async fn accepted(node: &Node, token: &str) -> bool {
    let mut client = Client::open(node.http, &format!("/chat/ws?token={token}"), &[]).await.expect("upgrade");
    match client.next().await {
        crate::support::client::Incoming::Frame(frame) => frame["type"] == "auth_success",
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_stand_in_query_header_cookie_and_subprotocol() {
    let node = Node::embedded(&[]).await;
    let token = token("a");
    let bearer = format!("Bearer {token}");
    let cookie = format!("theme=dark; token={token}");
    let subprotocol = format!("chat.v1, bearer.{token}");
    let query = format!("/chat/ws?token={token}");
    for (path, headers) in [
        (query.as_str(), vec![]),
        ("/chat/ws", vec![("authorization", bearer.as_str())]),
        ("/chat/ws", vec![("cookie", cookie.as_str())]),
        ("/chat/ws", vec![("sec-websocket-protocol", subprotocol.as_str())]),
    ] {
        let mut client = Client::open(node.http, path, &headers).await.expect("upgrade");
        assert_eq!(client.expect("auth_success").await["payload"]["userId"], "a");
        if headers.first().is_some_and(|(name, _)| *name == "sec-websocket-protocol") {
            assert_eq!(client.protocol.as_deref(), Some("chat.v1"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hmac_tokens_of_every_length_and_any_of_several_secrets() {
    let secrets = format!("another-secret-of-the-rotation,{SECRET}");
    let node = Node::embedded(&[("JWT_SECRET", &secrets)]).await;
    for secret in [SECRET, "another-secret-of-the-rotation"] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let token = signed(algorithm, &EncodingKey::from_secret(secret.as_bytes()));
            assert!(accepted(&node, &token).await, "{algorithm:?}");
        }
    }
    let token = signed(Algorithm::HS256, &EncodingKey::from_secret(b"a-secret-that-nobody-configured"));
    assert!(!accepted(&node, &token).await);
}

/// Makes a key pair with openssl; the PEM texts of the private and the public key.
pub(crate) fn key_pair(folder: &std::path::Path, name: &str, options: &[&str]) -> (Vec<u8>, std::path::PathBuf) {
    let private = folder.join(format!("{name}.pem"));
    let public = folder.join(format!("{name}.pub.pem"));
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new("openssl").args(arguments).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let mut generate: Vec<&std::ffi::OsStr> = vec!["genpkey".as_ref(), "-out".as_ref(), private.as_ref()];
    generate.extend(options.iter().map(std::ffi::OsStr::new));
    run(&generate);
    run(&["pkey".as_ref(), "-in".as_ref(), private.as_ref(), "-pubout".as_ref(), "-out".as_ref(), public.as_ref()]);
    (std::fs::read(private).expect("the key was written"), public)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_keys_check_only_tokens_of_their_own_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rsa, rsa_pub) = key_pair(folder.path(), "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let (ec, ec_pub) = key_pair(folder.path(), "ec", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let (ed, ed_pub) = key_pair(folder.path(), "ed", &["-algorithm", "ed25519"]);
    let files = [&rsa_pub, &ec_pub, &ed_pub].map(|path| path.display().to_string()).join(",");
    let node = Node::embedded(&[("JWT_PUBLIC_KEY_FILE", &files)]).await;

    let rsa_key = EncodingKey::from_rsa_pem(&rsa).expect("an RSA key");
    for token in [
        signed(Algorithm::RS256, &rsa_key),
        signed(Algorithm::ES256, &EncodingKey::from_ec_pem(&ec).expect("an EC key")),
        signed(Algorithm::EdDSA, &EncodingKey::from_ed_pem(&ed).expect("an Ed25519 key")),
        token("a"),
    ] {
        assert!(accepted(&node, &token).await, "{token}");
    }
    // Key confusion: an HS256 token that is signed with the text of a public key.
    for public in [&rsa_pub, &ec_pub, &ed_pub] {
        let text = std::fs::read(public).expect("the key was written");
        assert!(!accepted(&node, &signed(Algorithm::HS256, &EncodingKey::from_secret(&text))).await);
    }
    // Algorithms outside the list, and another key of the right kind.
    assert!(!accepted(&node, &signed(Algorithm::PS256, &rsa_key)).await);
    let (other, _) = key_pair(folder.path(), "other", &["-algorithm", "ed25519"]);
    let other = EncodingKey::from_ed_pem(&other).expect("an Ed25519 key");
    assert!(!accepted(&node, &signed(Algorithm::EdDSA, &other)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_odd_tokens_are_refused() {
    use base64::Engine;
    let node = Node::embedded(&[]).await;
    let part = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({ "sub": "a", "exp": in_seconds(60) });
    let none = format!("{}.{}.", part(json!({ "alg": "none" })), part(claims.clone()));
    let good = token("a");
    let (head_and_claims, signature) = good.rsplit_once('.').expect("three parts");
    let other_claims = format!("{}.{}.{signature}", part(json!({ "alg": "HS256" })), part(claims));
    for bad in [
        none.as_str(),
        other_claims.as_str(),
        head_and_claims,
        "a.b.c",
        "..",
        "%00",
        &"x".repeat(20_000),
        &token_with(json!({ "sub": "a" })),
        &token_with(json!({ "exp": in_seconds(60) })),
        &token_with(json!({ "sub": "a b", "exp": in_seconds(60) })),
        &token_with(json!({ "sub": 1.5, "exp": in_seconds(60) })),
        &token_with(json!({ "sub": "a", "exp": "never" })),
        &token_with(json!({ "sub": "a", "exp": in_seconds(60), "nbf": in_seconds(60) })),
    ] {
        assert!(!accepted(&node, bad).await, "{bad}");
    }
    for claim in ["sub", "user_id", "userId", "id"] {
        assert!(accepted(&node, &token_with(json!({ claim: 42, "exp": in_seconds(60) }))).await, "{claim}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_told_apart() {
    let node = Node::embedded(&[]).await;
    let expired = token_with(json!({ "sub": "a", "exp": in_seconds(-1) }));
    let mut client = Client::open(node.http, &format!("/chat/ws?token={expired}"), &[]).await.expect("upgrade");
    assert_eq!(client.expect("auth_failed").await["payload"]["code"], "TOKEN_EXPIRED");
    assert_eq!(client.expect_close().await, 4300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_ends_with_its_token_unless_refreshed() {
    let node = Node::embedded(&[]).await;
    let short = || token_with(json!({ "sub": "a", "exp": in_seconds(2), "iat": in_seconds(0) }));
    let (mut ends, _) = Client::join_with(node.http, &short()).await;
    let (mut stays, _) = Client::join_with(node.http, &short()).await;
    stays.send("auth", json!({ "token": token("a") })).await;
    stays.expect("auth_success").await;
    assert_eq!(ends.expect_close().await, 4300);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    stays.settle().await;
}

/// A refusal says which claim is at fault, over REST and on the socket, and the counter of handshakes has it as a label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_its_reason() {
    let node = Node::embedded(&[("JWT_ISSUER", "us"), ("JWT_AUDIENCE", "chat")]).await;
    let good = || json!({ "sub": "a", "iss": "us", "aud": "chat", "exp": in_seconds(60) });
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        token_with(claims)
    };
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let critical = encode(&critical, &good(), &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
    let foreign = encode(&Header::default(), &good(), &EncodingKey::from_secret(b"another")).expect("a token");
    let cases = [
        ("nonsense".to_owned(), "JSON Web Token", "malformed"),
        (foreign, "signature", "signature"),
        (critical, "crit", "critical_header"),
        (with("iss", json!("them")), "claim iss", "issuer"),
        (with("iss", Value::Null), "claim iss", "issuer"),
        (with("aud", json!("shop")), "claim aud", "audience"),
        (with("nbf", json!(in_seconds(600))), "claim nbf", "not_yet_valid"),
        (with("exp", Value::Null), "claim exp", "no_expiry"),
        (with("sub", json!("a b")), "is no id", "user_id"),
        (with("exp", json!(in_seconds(-60))), "expired", "expired"),
    ];
    for (token, text, label) in cases {
        let bearer = format!("Bearer {token}");
        let (status, answer) = get(node.http, "/api/v1/conversations", &[("authorization", &bearer)]).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 401 && message.contains(text), "{label}: {answer}");
        let mut client = Client::open(node.http, &format!("/chat/ws?token={token}"), &[]).await.expect("an upgrade");
        let failed = client.expect("auth_failed").await;
        assert!(failed["payload"]["message"].as_str().is_some_and(|message| message.contains(text)), "{failed}");
        let (_, metrics) = get(node.ops, "/metrics", &[]).await;
        let series = format!("parley_handshakes_total{{result=\"{label}\"}}");
        assert!(metrics.as_str().is_some_and(|text| text.contains(&series)), "no {series}");
    }
    let mut claims = good();
    claims.as_object_mut().expect("claims").remove("sub");
    let bearer = format!("Bearer {}", token_with(claims));
    let (_, answer) = get(node.http, "/api/v1/conversations", &[("authorization", &bearer)]).await;
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("JWT_USER_CLAIMS")), "{answer}");
    assert!(accepted(&node, &token_with(good())).await);
}
