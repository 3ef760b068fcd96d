//! Each step of a message's way through a node, with data of an ordinary size.
//! It offers the steps to the test `allocations`, which counts heap use, and to the example `instructions`.
//! It never measures anything itself.

mod rig;

use std::num::NonZeroU16;

use bytes::Bytes;
use gateway::backbone::Inbox;
use gateway::chat::events::{About, MessageBodies, message_bodies};
use gateway::chat::receipt_events::receipt_events;
use gateway::delivery::envelope::Payload;
use gateway::delivery::frames::reply_on;
use gateway::dispatch::pong;
use gateway::store::{Receipt, ReceiptChange, ReceiptKind};
use gateway::ws::decoder::{Decoder as FrameDecoder, Item};
use serde_json::json;
use shared::dialect::Decoder;
use shared::{Dialect, Event, Message, Wire};

pub(crate) use rig::{Rig, USER, deflated, masked};

/// Takes each step in turn. `input` makes what one call consumes, and doesn't count; `run` is the step.
pub(crate) trait Measure {
    /// One step.
    fn step<I, O>(&mut self, name: &'static str, input: impl FnMut() -> I, run: impl FnMut(I) -> O);
}

/// Every step.
pub(crate) fn steps(measure: &mut impl Measure) {
    commands(measure);
    events(measure);
    deliveries(measure);
    dialects(measure);
    compression(measure);
}

/// From the bytes of a client's frame to the command.
fn commands(measure: &mut impl Measure) {
    for (name, text) in [
        ("decode message.send", SEND),
        ("decode typing", r#"{"type":"typing","payload":{"conversationId":"1002003004","isTyping":true}}"#),
        (
            "decode message.read",
            r#"{"type":"message.read","payload":{"conversationId":"1002003004","upTo":"7001002"}}"#,
        ),
    ] {
        decode(measure, name, &masked(0x81, text.as_bytes()));
    }
}

fn decode(measure: &mut impl Measure, name: &'static str, frame: &[u8]) {
    let (mut frames, mut decoder) = (FrameDecoder::new(1 << 16, true), Decoder::new(4000));
    measure.step(
        name,
        || frame.to_vec(),
        |mut bytes| {
            let mut input = bytes.as_mut_slice();
            let Ok(Some(Item::Text(mut text))) = frames.next(&mut input) else { panic!("a text frame") };
            decoder.decode_as(Dialect::Chat, &mut text).command.expect("a command")
        },
    );
}

/// From what was committed, or asked, to the bytes of events.
fn events(measure: &mut impl Measure) {
    let (message, about) = (message(), about());
    measure.step("build message.sent and message.new", || (), |()| message_bodies(&message, &about, 2));
    let (receipts, outcomes) = receipt();
    measure.step("build message.read_ack and message.read_update", || (), |()| receipt_events(&receipts, &outcomes));
    let typing = typing();
    measure.step("build typing", || (), |()| typing.to_json());
    let reference = "\"r-17\"".to_owned();
    measure.step(
        "answer a ping",
        || Some("1795262400007".to_owned()),
        |timestamp| reply_on(Wire::CHAT, &pong(timestamp), Some(&reference)),
    );
}

/// From the backbone's payload to the bytes that are to be written to each socket.
fn deliveries(measure: &mut impl Measure) {
    let bodies = message_bodies(&message(), &about(), 2);
    let (receipts, outcomes) = receipt();
    let of_receipt = receipt_events(&receipts, &outcomes);
    let [read_ack, read_update] = of_receipt.as_slice() else { panic!("two events") };
    for (name, body, sockets) in [
        ("deliver message.new to one socket", &bodies.new[..], 1),
        ("deliver message.new to ten sockets", &bodies.new[..], 10),
        ("deliver message.sent to one socket", &bodies.sent[..], 1),
        ("deliver message.read_ack to one socket", read_ack.body.as_bytes(), 1),
        ("deliver message.read_update to one socket", read_update.body.as_bytes(), 1),
    ] {
        deliver(measure, name, &vec![Wire::CHAT; sockets], body);
    }
    let typing = Bytes::from(typing().to_json());
    let rig = Rig::new(&[Wire::CHAT]);
    measure.step(
        "deliver typing to one socket",
        || typing.clone(),
        |payload| {
            rig.fanout.user_event(USER, &payload);
            rig.take()
        },
    );
    let payload = Rig::new(&[]).payload(&bodies.new);
    measure.step("check the payload of message.new", || (), |()| Payload::parse(&payload).expect("a payload").seq);
}

/// The same where the events have to be translated.
fn dialects(measure: &mut impl Measure) {
    let bodies = message_bodies(&message(), &about(), 2);
    for (name, dialect) in [
        ("deliver message.new to one socket of listings.v1", Dialect::Listings),
        ("deliver message.new to one socket of social.v1", Dialect::Social),
        ("deliver message.new to one socket of channels.v1", Dialect::Channels),
    ] {
        deliver(measure, name, &[Wire::plain(dialect, true)], &bodies.new);
    }
}

/// A message of 1,500 characters both ways, as it is and compressed.
fn compression(measure: &mut impl Measure) {
    let content = prose(1_500);
    let send = json!({ "type": "message.send", "ref": "r-17", "payload": {
        "conversationId": "1002003004", "tempId": "temp-1795262400007-1", "content": content } });
    let send = send.to_string();
    decode(measure, "decode a long message.send", &masked(0x81, send.as_bytes()));
    decode(measure, "decode a long message.send, compressed", &masked(0xC1, &deflated(send.as_bytes())));
    let bodies = long_bodies(1_500);
    for (name, wire, sockets) in [
        ("deliver a long message.new to one socket", Wire::CHAT, 1),
        ("deliver a long message.new to ten sockets", Wire::CHAT, 10),
        ("deliver a long message.new, compressed, to one socket", COMPRESSED, 1),
        ("deliver a long message.new, compressed, to ten sockets", COMPRESSED, 10),
    ] {
        deliver(measure, name, &vec![wire; sockets], &bodies.new);
    }
}

/// The events of a message with so many characters.
pub(crate) fn long_bodies(chars: usize) -> MessageBodies {
    message_bodies(&Message { content: prose(chars), ..message() }, &about(), 2)
}

/// A socket that negotiated compression, under the default of `COMPRESS_MIN_BYTES`.
pub(crate) const COMPRESSED: Wire = Wire { deflate_from: NonZeroU16::new(512), ..Wire::CHAT };

/// So many characters of words in an order that doesn't repeat, as people write.
pub(crate) fn prose(chars: usize) -> String {
    const WORDS: &str = "the node message when you hello is that meeting tomorrow I think we should look at it again because \
                         users reported some problems with delivery yesterday okay fine lunch great no yes maybe later code \
                         review please can do this one more time of and to in for on not was are as but from they have had \
                         what all were your there would about";
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut state = 7_919_u64;
    let mut text = String::new();
    while text.len() < chars {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text += words.get(usize::try_from(state % words.len() as u64).unwrap_or(0)).unwrap_or(&"");
        text += if state.is_multiple_of(11) { ". " } else { " " };
    }
    text.truncate(chars);
    text.trim_end().to_owned()
}

fn deliver(measure: &mut impl Measure, name: &'static str, wires: &[Wire], body: &[u8]) {
    let rig = Rig::new(wires);
    measure.step(
        name,
        || rig.payload(body),
        |payload| {
            rig.fanout.user_event(USER, &payload);
            rig.take()
        },
    );
}

/// A frame of 200 characters, as a front end writes it.
const SEND: &str = concat!(
    r#"{"type":"message.send","ref":"r-17","payload":{"conversationId":"1002003004","tempId":"temp-1795262400007-1","#,
    r#""content":"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et "#,
    r#"dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco \"laboris\" nisi."}}"#,
);

fn message() -> Message {
    let send: serde_json::Value = serde_json::from_str(SEND).expect("JSON");
    serde_json::from_value(serde_json::json!({
        "id": "7001002", "conversationId": "1002003004", "seq": 812, "rev": 900, "senderId": "100200", "kind": "text",
        "content": send.pointer("/payload/content"), "tempId": "temp-1795262400007-1", "createdAt": "2026-11-21T12:00:00.007Z",
    }))
    .expect("a message")
}

fn about() -> About {
    About { to: USER.parse().ok(), sender_name: None }
}

fn typing() -> Event {
    Event::Typing {
        conversation_id: "1002003004".parse().expect("an id"),
        user_id: "100200".parse().expect("an id"),
        is_typing: true,
        username: None,
    }
}

fn receipt() -> (Vec<Receipt>, Vec<Result<ReceiptChange, gateway::store::Refusal>>) {
    let (reader, sender) = (USER.parse().expect("an id"), "100200".parse().expect("an id"));
    let message = message();
    let conversation = message.conversation_id.clone();
    let change = ReceiptChange {
        up_to_seq: message.seq,
        up_to: Some(message.id),
        marked_count: 1,
        by_sender: vec![(sender, vec![message.id])],
        last_seq: message.seq,
        moved: true,
        at: message.created_at,
    };
    (vec![Receipt { kind: ReceiptKind::Read, user: reader, conversation, up_to: Some(message.id) }], vec![Ok(change)])
}
