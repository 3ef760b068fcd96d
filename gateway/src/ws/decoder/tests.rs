//! The decoder against hand-made frames: every rule, every split point, any chunking, any bytes.

use proptest::prelude::*;
use shared::CloseCode;

use super::*;
use crate::ws::client_frame::{MASK, client, deflated};

const LIMIT: u32 = 70_000;

/// A decoder's output for a stream, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Fragment,
    Close(Option<u16>),
}

impl From<Item<'_>> for Seen {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Text(payload) => Self::Text(payload.to_vec()),
            Item::Binary(payload) => Self::Binary(payload.to_vec()),
            Item::Ping(payload) => Self::Ping(payload.to_vec()),
            Item::Pong => Self::Pong,
            Item::Fragment => Self::Fragment,
            Item::Close(code) => Self::Close(code),
        }
    }
}

/// Feeds the chunks one by one; what came out, and the fault that ended it.
fn decode<'c>(decoder: &mut Decoder, chunks: impl IntoIterator<Item = &'c [u8]>) -> (Vec<Seen>, Option<Fault>) {
    let mut seen = Vec::new();
    for chunk in chunks {
        let mut owned = chunk.to_vec();
        let mut rest = &mut owned[..];
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(item)) => seen.push(item.into()),
                Ok(None) => break assert!(rest.is_empty(), "the decoder leaves nothing behind"),
                Err(fault) => return (seen, Some(fault)),
            }
        }
    }
    (seen, None)
}

fn decode_whole(stream: &[u8]) -> (Vec<Seen>, Option<Fault>) {
    decode(&mut Decoder::new(LIMIT, false), [stream])
}

/// The same of a socket that negotiated compression.
fn decode_deflating(stream: &[u8]) -> (Vec<Seen>, Option<Fault>) {
    let whole = decode(&mut Decoder::new(LIMIT, true), [stream]);
    let bytewise = decode(&mut Decoder::new(LIMIT, true), stream.chunks(1));
    assert_eq!(whole, bytewise, "it doesn't depend on how the bytes arrive");
    whole
}

fn fault_of(stream: &[u8]) -> Option<Fault> {
    let bytewise = decode(&mut Decoder::new(LIMIT, false), stream.chunks(1));
    assert_eq!(decode_whole(stream), bytewise, "a fault doesn't depend on how the bytes arrive");
    bytewise.1
}

/// A stream with every kind of frame, and what it says.
fn conversation() -> (Vec<u8>, Vec<Seen>) {
    let long = "ß€𝄞".repeat(20);
    let stream = [
        client(0x81, b"{}"),
        client(0x01, "fr\u{00e4}".as_bytes().split_at(3).0),
        client(0x89, b"mid"),
        client(0x00, b""),
        client(0x80, "fr\u{00e4}g".as_bytes().split_at(3).1),
        client(0x8A, b"unasked"),
        client(0x82, &[0xFF; 130]),
        client(0x81, b""),
        client(0x81, long.as_bytes()),
        client(0x02, b"\xFE"),
        client(0x80, b"\xFF"),
        client(0x88, b"\x03\xE9going"),
    ]
    .concat();
    let seen = vec![
        Seen::Text(b"{}".to_vec()),
        Seen::Fragment,
        Seen::Ping(b"mid".to_vec()),
        Seen::Fragment,
        Seen::Text("fräg".into()),
        Seen::Pong,
        Seen::Binary(vec![0xFF; 130]),
        Seen::Text(Vec::new()),
        Seen::Text(long.into()),
        Seen::Fragment,
        Seen::Binary(b"\xFE\xFF".to_vec()),
        Seen::Close(Some(1001)),
    ];
    (stream, seen)
}

#[test]
fn an_idle_socket_keeps_almost_nothing() {
    assert!(size_of::<Decoder>() <= 16, "{} bytes", size_of::<Decoder>());
    let mut decoder = Decoder::new(LIMIT, false);
    let (stream, _) = conversation();
    decode(&mut decoder, stream.chunks(1));
    assert!(decoder.partial.is_none());
    let mut decoder = Decoder::new(LIMIT, true);
    decode(&mut decoder, compressed_conversation().0.chunks(1));
    assert!(decoder.partial.is_none(), "and no inflater");
}

#[test]
fn every_pair_of_split_points_gives_the_same_items() {
    let (stream, expected) = conversation();
    assert_eq!(decode_whole(&stream), (expected.clone(), None));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let chunks = [&stream[..first], &stream[first..second], &stream[second..]];
            let (seen, fault) = decode(&mut Decoder::new(LIMIT, false), chunks);
            assert!(seen == expected && fault.is_none(), "split at {first} and {second}: {seen:?} {fault:?}");
        }
    }
}

#[test]
fn a_whole_message_is_lent_in_place_and_may_be_changed() {
    let mut stream = [client(0x81, b"first"), client(0x81, b"second")].concat();
    let mut decoder = Decoder::new(LIMIT, false);
    let mut rest = &mut stream[..];
    for expected in [&b"first"[..], b"second"] {
        let Ok(Some(Item::Text(mut payload))) = decoder.next(&mut rest) else { panic!("no text") };
        assert_eq!(*payload, *expected);
        assert!(matches!(payload, Payload::InPlace(_)));
        payload.fill(0);
    }
    assert!(decoder.partial.is_none());
}

#[test]
fn faults_of_the_header() {
    assert_eq!(fault_of(&[0x81, 0x00]), Some(Fault::Unmasked));
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(fault_of(&client(0x81 | bit, b"x")), Some(Fault::Reserved));
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(fault_of(&client(0x80 | opcode, b"x")), Some(Fault::Opcode));
    }
    for control in [0x8, 0x9, 0xA] {
        assert_eq!(fault_of(&client(control, b"")), Some(Fault::ControlFragmented));
        assert_eq!(fault_of(&client(0x80 | control, &[b'x'; 126])), Some(Fault::ControlTooLong));
    }
    let long = |form: u8, length: &[u8]| [&[0x82, 0x80 | form], length, &MASK].concat();
    assert_eq!(fault_of(&long(126, &125_u16.to_be_bytes())), Some(Fault::LengthEncoding));
    assert_eq!(fault_of(&long(127, &0xFFFF_u64.to_be_bytes())), Some(Fault::LengthEncoding));
    assert_eq!(fault_of(&long(127, &(1_u64 << 63).to_be_bytes())), Some(Fault::LengthEncoding));
    assert_eq!(fault_of(&long(127, &(u64::MAX >> 1).to_be_bytes())), Some(Fault::TooBig));
}

/// Compressed messages, whole and in fragments, beside others; and what they say.
fn compressed_conversation() -> (Vec<u8>, Vec<Seen>) {
    let long = "ß€𝄞 and again ".repeat(30);
    let payload = deflated(long.as_bytes(), 15);
    let (first, rest) = payload.split_at(payload.len() / 2);
    let stream = [
        client(0xC1, &payload),
        client(0x41, first),
        client(0x89, b"mid"),
        client(0x00, b""),
        client(0x80, rest),
        client(0x81, b"plain"),
        client(0xC2, &deflated(&[0xFF; 300], 9)),
        client(0x42, b""),
        client(0x80, &deflated(b"late", 15)),
        client(0xC1, b"\x00"),
        client(0x01, b"pla"),
        client(0x80, b"in"),
    ]
    .concat();
    let seen = vec![
        Seen::Text(long.clone().into()),
        Seen::Fragment,
        Seen::Ping(b"mid".to_vec()),
        Seen::Fragment,
        Seen::Text(long.into()),
        Seen::Text(b"plain".to_vec()),
        Seen::Binary(vec![0xFF; 300]),
        Seen::Fragment,
        Seen::Binary(b"late".to_vec()),
        Seen::Text(Vec::new()),
        Seen::Fragment,
        Seen::Text(b"plain".to_vec()),
    ];
    (stream, seen)
}

#[test]
fn compressed_messages_come_as_they_were_said_however_they_arrive() {
    let (stream, expected) = compressed_conversation();
    assert_eq!(decode_deflating(&stream), (expected.clone(), None));
    for first in 0..=stream.len() {
        let chunks = [&stream[..first], &stream[first..]];
        let seen = decode(&mut Decoder::new(LIMIT, true), chunks);
        assert_eq!(seen, (expected.clone(), None), "split at {first}");
    }
    assert_eq!(decode_deflating(&conversation().0), (conversation().1, None), "nobody has to compress");
}

#[test]
fn the_bit_of_compression_stands_on_first_frames_of_messages_only() {
    let hello = deflated(b"Hello", 15);
    assert_eq!(fault_of(&client(0xC1, &hello)), Some(Fault::Reserved), "nothing was negotiated");
    let fault = |stream: &[u8]| decode_deflating(stream).1;
    for control in [0x8, 0x9, 0xA] {
        assert_eq!(fault(&client(0xC0 | control, b"")), Some(Fault::Reserved));
    }
    assert_eq!(fault(&client(0xC0, &hello)), Some(Fault::Reserved));
    assert_eq!(fault(&[client(0x41, &hello), client(0xC0, b"")].concat()), Some(Fault::Reserved));
    assert_eq!(fault(&[client(0x01, b"Hel"), client(0xC0, b"lo")].concat()), Some(Fault::Reserved));
    assert_eq!(fault(&[client(0x41, b""), client(0xC1, &hello)].concat()), Some(Fault::ContinuationExpected));
    for bits in [0x20, 0x10, 0x60, 0x50, 0x70] {
        assert_eq!(fault(&client(0x81 | bits, &hello)), Some(Fault::Reserved));
    }
    assert_eq!(fault(&client(0xC3, &hello)), Some(Fault::Opcode));
}

#[test]
fn a_compressed_message_has_its_own_faults() {
    let fault = |stream: &[u8]| decode_deflating(stream).1;
    let text = deflated("a text of some length, a text of some length".as_bytes(), 15);
    assert_eq!(fault(&client(0xC1, b"not deflate")), Some(Fault::Deflate));
    assert_eq!(fault(&client(0xC1, &text[..text.len() - 3])), Some(Fault::Deflate));
    assert_eq!(fault(&[client(0x41, &text[..9]), client(0x80, b"")].concat()), Some(Fault::Deflate));
    assert_eq!(fault(&client(0xC1, &deflated(b"cut \xE2\x82", 15))), Some(Fault::Utf8));
    assert_eq!(decode_deflating(&client(0xC2, &deflated(b"cut \xE2\x82", 15))).1, None);
    let bomb = deflated(&vec![b'x'; LIMIT as usize + 1], 15);
    assert!(bomb.len() < 200);
    assert_eq!(fault(&client(0xC1, &bomb)), Some(Fault::TooBig));
    assert_eq!(fault(&[client(0x41, &bomb[..50]), client(0x80, &bomb[50..])].concat()), Some(Fault::TooBig));
    // As it arrives, too, a message has no more bytes than it may.
    assert_eq!(decode(&mut Decoder::new(10, true), [&client(0xC2, &[0; 11])[..6]]).1, Some(Fault::TooBig));
    assert_eq!(Fault::Deflate.close_code(), CloseCode::WebSocketProtocol);
}

#[test]
fn faults_between_frames() {
    assert_eq!(fault_of(&client(0x80, b"x")), Some(Fault::ContinuationUnexpected));
    assert_eq!(fault_of(&[client(0x01, b"x"), client(0x81, b"y")].concat()), Some(Fault::ContinuationExpected));
    let after_end = [client(0x01, b"x"), client(0x80, b"y"), client(0x00, b"z")].concat();
    assert_eq!(fault_of(&after_end), Some(Fault::ContinuationUnexpected));
}

#[test]
fn the_limit_is_for_the_assembled_message_and_judged_by_the_header() {
    let limit = 10;
    let run = |frames: &[Vec<u8>]| decode(&mut Decoder::new(limit, false), [&frames.concat()[..]]);
    assert_eq!(run(&[client(0x82, &[1; 10])]), (vec![Seen::Binary(vec![1; 10])], None));
    assert_eq!(run(&[client(0x82, &[1; 11])]).1, Some(Fault::TooBig));
    let halves = [client(0x02, &[1; 5]), client(0x80, &[1; 5])];
    assert_eq!(run(&halves), (vec![Seen::Fragment, Seen::Binary(vec![1; 10])], None));
    assert_eq!(run(&[client(0x02, &[1; 5]), client(0x80, &[1; 6])]).1, Some(Fault::TooBig));
    let header_only = &client(0x82, &[1; 11])[..6];
    assert_eq!(decode(&mut Decoder::new(limit, false), [header_only]).1, Some(Fault::TooBig));
    assert_eq!(run(&[client(0x02, &[1; 10]), client(0x89, &[2; 100])]).1, None, "control frames don't count");
}

#[test]
fn bad_text_fails_at_its_first_bad_byte() {
    assert_eq!(fault_of(&client(0x81, b"\xCE\xBA\xED\xA0\x80")), Some(Fault::Utf8));
    assert_eq!(fault_of(&client(0x81, b"cut \xE2\x82")), Some(Fault::Utf8));
    assert_eq!(fault_of(&[client(0x01, b"cut \xE2\x82"), client(0x80, b"x")].concat()), Some(Fault::Utf8));
    // In the first fragment, and in the middle of a frame of which the rest never comes (Autobahn 6.4.1 to 6.4.4).
    assert_eq!(fault_of(&client(0x01, b"ok \xF4\x90")), Some(Fault::Utf8));
    let frame = client(0x81, b"ok \xF4\x90\x80\x80 and more");
    let until_bad = 2 + MASK.len() + 5;
    assert_eq!(decode_whole(&frame[..until_bad - 1]), (vec![], None));
    assert_eq!(decode_whole(&frame[..until_bad]), (vec![], Some(Fault::Utf8)));
}

#[test]
fn close_frames_are_judged_whole() {
    let close = |payload: &[u8]| {
        let (seen, fault) = decode_whole(&client(0x88, payload));
        (seen.into_iter().next(), fault)
    };
    assert_eq!(close(b""), (Some(Seen::Close(None)), None));
    assert_eq!(close(b"\x03"), (None, Some(Fault::CloseLength)));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999_u16] {
        assert_eq!(close(&code.to_be_bytes()), (Some(Seen::Close(Some(code))), None));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535_u16] {
        assert_eq!(close(&code.to_be_bytes()), (None, Some(Fault::CloseCode(code))));
    }
    assert_eq!(close(b"\x03\xE8\xFF"), (None, Some(Fault::Utf8)));
}

#[test]
fn faults_know_their_close_code() {
    assert_eq!(Fault::Unmasked.close_code(), CloseCode::WebSocketProtocol);
    assert_eq!(Fault::Utf8.close_code(), CloseCode::InvalidUtf8);
    assert_eq!(Fault::TooBig.close_code(), CloseCode::MessageTooBig);
}

/// Cuts `stream` at the given places, which are fractions of its length.
fn cut<'s>(stream: &'s [u8], places: &[prop::sample::Index]) -> Vec<&'s [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let ends = places.iter().copied().chain([stream.len()]);
    ends.scan(0, |start, end| Some(&stream[std::mem::replace(start, end)..end])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_gives_the_same_messages(
        messages in prop::collection::vec((any::<String>(), 1_usize..5), 0..6),
        binary in prop::collection::vec(any::<u8>(), 0..70_000),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (text, fragments) in &messages {
            let size = text.len().div_ceil(*fragments).max(1);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).chain(text.is_empty().then_some(&[][..])).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let opcode = if index == 0 { 0x01 } else { 0x00 };
                let fin = if index + 1 == pieces.len() { 0x80 } else { 0x00 };
                stream.extend(client(fin | opcode, piece));
            }
            expected.extend(pieces.iter().skip(1).map(|_| Seen::Fragment));
            expected.push(Seen::Text(text.clone().into_bytes()));
        }
        stream.extend(client(0x82, &binary));
        expected.push(Seen::Binary(binary));
        let (seen, fault) = decode(&mut Decoder::new(LIMIT, false), cut(&stream, &places));
        prop_assert_eq!(fault, None);
        prop_assert!(seen == expected);
    }

    #[test]
    fn any_bytes_end_the_same_however_they_arrive(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..140)), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream: Vec<u8> = frames.iter().flat_map(|(head, payload)| client(head & 0x8F, payload)).collect();
        stream.extend(noise);
        let whole = decode_whole(&stream);
        prop_assert_eq!(decode(&mut Decoder::new(LIMIT, false), cut(&stream, &places)), whole);
    }

    #[test]
    fn unmasking_wide_is_unmasking_bytewise(payload in prop::collection::vec(any::<u8>(), 0..100), mask in any::<[u8; 4]>()) {
        let expected: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let mut unmasked = payload;
        unmask(&mut unmasked, mask);
        prop_assert_eq!(unmasked, expected);
    }
}

proptest! {
    // Each compressed frame takes a deflater of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_compressing_client_end_the_same_however_they_arrive(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..140), any::<bool>()), 0..6),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let frame = |(head, payload, deflates): &(u8, Vec<u8>, bool)| match deflates {
            true => client(head & 0xCF, &deflated(payload, 15)),
            false => client(head & 0xCF, payload),
        };
        let stream: Vec<u8> = frames.iter().flat_map(frame).collect();
        let whole = decode_deflating(&stream);
        prop_assert_eq!(decode(&mut Decoder::new(LIMIT, true), cut(&stream, &places)), whole);
    }
}
