//! The bytes on a user's channel: canonical envelopes, one per line, the durable one first with its `seq` in front.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BackboneError, Delivery};

/// `body` with `"seq":N` as the first member of its first envelope.
pub(super) fn with_seq(seq: u64, body: &[u8]) -> Bytes {
    let rest = body.strip_prefix(b"{").unwrap_or(body);
    let head = format!("{{\"seq\":{seq},");
    let mut payload = BytesMut::with_capacity(head.len() + rest.len());
    payload.put_slice(head.as_bytes());
    payload.put_slice(rest);
    payload.freeze()
}

/// The line that nodes keep for themselves: the log was begun anew.
pub(super) fn opened_line(epoch: &str) -> String {
    format!("{{\"epoch\":\"{epoch}\",\"seq\":0}}\n")
}

/// The body of a marker with its place in the log.
pub(super) fn placed(body: &[u8], epoch: &str, seq: u64) -> Bytes {
    const HEAD: &[u8] = b"{\"type\":\"resync\",\"payload\":{";
    let place = format!("\"reason\":\"trimmed\",\"epoch\":\"{epoch}\",\"seq\":{seq},");
    Bytes::from([HEAD, place.as_bytes(), body.strip_prefix(HEAD).unwrap_or_default()].concat())
}

/// A `seq` can be put only into an object that has members: anything else is a fault of the caller.
pub(super) fn check(deliveries: &[Delivery]) -> Result<(), BackboneError> {
    if deliveries.iter().all(|delivery| delivery.body.starts_with(b"{\"")) {
        Ok(())
    } else {
        Err(BackboneError("a delivery's body is not an envelope".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_comes_first_and_the_rest_stays() {
        let payload = with_seq(12, b"{\"type\":\"a\",\"payload\":{}}\n{\"type\":\"b\",\"payload\":{}}");
        assert_eq!(payload, "{\"seq\":12,\"type\":\"a\",\"payload\":{}}\n{\"type\":\"b\",\"payload\":{}}");
    }
}
