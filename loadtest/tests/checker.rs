//! The checker must find every kind of fault, and must accept everything that the protocol allows.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::HashMap;

use loadtest::client::wire::Place;
use loadtest::client::{Transport, UnreadCounts};
use loadtest::oracle::{
    Ack, Attempt, ConversationFacts, DeviceEvidence, DeviceLog, Entry, Evidence, FetchReason, MessageRow, Record,
    Sighting, ViolationKind, check,
};
use shared::{ConversationId, Epoch, MessageId, UserId};

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user id")
}

fn message(n: u64) -> Sighting {
    Sighting { id: MessageId::new(1000 + n).expect("an id"), conversation: conversation(), seq: 10 + n }
}

fn conversation() -> ConversationId {
    ConversationId::parse("c1").expect("an id")
}

fn place(epoch: &str, seq: u64) -> Place {
    Place { epoch: Epoch::parse(epoch).expect("an epoch"), seq }
}

fn opened(asked: Option<Place>, resumed: bool, at: Place) -> Entry {
    Entry::Opened { asked, resumed, place: at }
}

fn durable(seq: u64, n: u64) -> Entry {
    Entry::Durable { seq, message: Some(message(n)) }
}

fn device(name: &str, number: usize, entries: Vec<Entry>) -> DeviceEvidence {
    let records = entries.into_iter().zip(1..).map(|(entry, at)| Record { at_us: at * 1000, entry }).collect();
    let log = DeviceLog { records, ..DeviceLog::default() };
    DeviceEvidence { user: user(name), number, transport: Transport::Socket, log }
}

/// `a` sends five messages to `b`; both get them all.
fn sound() -> Evidence {
    let all = |epoch| std::iter::once(opened(None, false, place(epoch, 0))).chain((1..=5).map(|n| durable(n, n)));
    let mut sender = device("a", 0, all("ea").collect());
    sender.log.acks = (1..=5).map(|n| Ack { temp_id: format!("t{n}"), message: message(n), at_us: n * 1000 }).collect();
    let attempt = |n: u64| Attempt { temp_id: format!("t{n}"), sender: user("a"), at_us: n * 1000 };
    let row = |n| MessageRow { message: message(n), sender: user("a"), temp_id: Some(format!("t{n}")) };
    Evidence {
        conversations: HashMap::from([(
            conversation(),
            ConversationFacts { members: vec![user("a"), user("b")], base_seq: 10 },
        )]),
        attempts: (1..=5).map(attempt).collect(),
        devices: vec![sender, device("b", 1, all("eb").collect())],
        stored: (1..=5).map(row).collect(),
        unread: HashMap::new(),
    }
}

fn with_receiver(entries: Vec<Entry>) -> Evidence {
    let mut evidence = sound();
    evidence.devices[1] = device("b", 1, entries);
    evidence
}

/// The kinds of fault found, with how often.
fn faults(evidence: &Evidence) -> Vec<(ViolationKind, u64)> {
    check(evidence).faults.into_iter().collect()
}

#[test]
fn a_sound_run_is_clean() {
    let verdict = check(&sound());
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    let counts = verdict.counts;
    assert_eq!((counts.acked, counts.stored, counts.delivered, counts.due, counts.live), (5, 5, 10, 10, 10));
}

#[test]
fn a_dropped_event_is_a_gap_and_undelivered() {
    let mut evidence = sound();
    evidence.devices[1].log.records.remove(3);
    assert_eq!(faults(&evidence), [(ViolationKind::Undelivered, 1), (ViolationKind::LogGap, 1)]);
}

#[test]
fn what_a_stream_leaves_out_is_missed_as_on_a_socket() {
    let mut evidence = sound();
    evidence.devices[1].transport = Transport::Stream;
    let counts = check(&evidence).counts;
    assert_eq!((counts.delivered, counts.stream_deliveries), (10, 5));
    evidence.devices[1].log.records.remove(3);
    assert_eq!(faults(&evidence), [(ViolationKind::Undelivered, 1), (ViolationKind::LogGap, 1)]);
    assert_eq!(check(&evidence).counts.stream_deliveries, 4);
}

#[test]
fn a_dropped_last_event_leaves_no_gap_and_is_still_missed() {
    let mut evidence = sound();
    evidence.devices[1].log.records.pop();
    assert_eq!(faults(&evidence), [(ViolationKind::Undelivered, 1)]);
}

#[test]
fn a_dropped_event_with_renumbered_followers_is_undelivered() {
    let entries = vec![opened(None, false, place("eb", 0)), durable(1, 1), durable(2, 2), durable(3, 4), durable(4, 5)];
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Undelivered, 1)]);
}

#[test]
fn a_doubled_event_is_found_with_the_same_seq_and_with_another() {
    let mut evidence = sound();
    let again = evidence.devices[1].log.records[3].clone();
    evidence.devices[1].log.records.insert(4, again);
    assert_eq!(faults(&evidence), [(ViolationKind::Doubled, 1), (ViolationKind::LogDisorder, 1)]);

    let mut evidence = sound();
    evidence.devices[1].log.records.push(Record { at_us: 9000, entry: durable(6, 3) });
    assert_eq!(faults(&evidence), [(ViolationKind::Doubled, 1)]);
}

#[test]
fn a_message_logged_twice_is_found_across_connections() {
    let mut entries: Vec<Entry> = sound().devices[1].log.records.iter().map(|record| record.entry.clone()).collect();
    entries.extend([Entry::Closed, opened(Some(place("eb", 5)), true, place("eb", 5)), durable(6, 3)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Doubled, 1)]);
}

#[test]
fn swapped_events_are_out_of_order() {
    let mut evidence = sound();
    evidence.devices[1].log.records.swap(2, 3);
    let found = faults(&evidence);
    assert!(
        found.contains(&(ViolationKind::LogDisorder, 1)) && found.contains(&(ViolationKind::LogGap, 1)),
        "{found:?}"
    );
}

#[test]
fn an_acknowledgement_without_a_row_is_lost() {
    let mut evidence = sound();
    let log = &mut evidence.devices[0].log;
    log.acks.push(Ack { temp_id: "t6".into(), message: message(6), at_us: 9000 });
    assert_eq!(faults(&evidence), [(ViolationKind::LostAck, 1)]);
}

#[test]
fn an_acknowledgement_of_another_row_is_found() {
    let mut evidence = sound();
    evidence.devices[0].log.acks[2].message = message(4);
    assert_eq!(faults(&evidence), [(ViolationKind::AckMismatch, 1)]);

    let mut evidence = sound();
    let log = &mut evidence.devices[0].log;
    log.acks.push(Ack { temp_id: "t1".into(), message: message(2), at_us: 9000 });
    // Once because t1 was message 1, once because message 2 is t2.
    assert_eq!(faults(&evidence), [(ViolationKind::AckMismatch, 2)]);
}

#[test]
fn a_retry_stored_twice_and_a_hole_in_a_conversation_are_found() {
    let mut evidence = sound();
    evidence.stored[4].temp_id = Some("t4".into());
    let found = faults(&evidence);
    assert!(found.contains(&(ViolationKind::DoubleStored, 1)), "{found:?}");

    let mut evidence = sound();
    evidence.stored.remove(2);
    let found = faults(&evidence);
    assert!(found.contains(&(ViolationKind::StoreDisorder, 1)), "{found:?}");
    assert!(found.contains(&(ViolationKind::LostAck, 1)) && found.contains(&(ViolationKind::Phantom, 2)), "{found:?}");

    let mut evidence = sound();
    evidence.stored[0].message.seq = 12;
    let found = faults(&evidence);
    assert!(found.contains(&(ViolationKind::StoreDisorder, 2)), "{found:?}");
}

#[test]
fn a_message_at_another_place_than_stored_is_a_phantom() {
    let mut evidence = sound();
    let Entry::Durable { message: Some(message), .. } = &mut evidence.devices[1].log.records[2].entry else {
        panic!("a message")
    };
    message.seq = 99;
    assert!(faults(&evidence).contains(&(ViolationKind::Phantom, 1)));
}

#[test]
fn a_resume_continues_where_it_was_asked_to() {
    let asked = || Some(place("eb", 2));
    let begin = || vec![opened(None, false, place("eb", 0)), durable(1, 1), durable(2, 2), Entry::Closed];
    let rest = || (3..=5).map(|n| durable(n, n));

    let mut entries = begin();
    entries.push(opened(asked(), true, place("eb", 2)));
    entries.extend(rest());
    let verdict = check(&with_receiver(entries));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!((verdict.counts.resumes, verdict.counts.reconnects), (1, 1));

    let mut entries = begin();
    entries.push(opened(asked(), true, place("eb", 3)));
    entries.extend(rest().skip(1));
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Undelivered, 1), (ViolationKind::ResumeMismatch, 1)]);
}

#[test]
fn what_a_resync_brings_is_explained_and_what_it_forgets_is_not() {
    let begin = || {
        vec![
            opened(None, false, place("eb", 0)),
            durable(1, 1),
            Entry::Closed,
            opened(Some(place("eb", 1)), false, place("new", 0)),
            Entry::Resync { place: place("new", 0), is_marker: false },
            Entry::Fetched { reason: FetchReason::Resync, message: message(2) },
        ]
    };
    let mut entries = begin();
    entries.push(Entry::Fetched { reason: FetchReason::Resync, message: message(3) });
    // The redo may bring what the fetch had brought already.
    entries.extend([Entry::Adopted, durable(1, 3), durable(2, 4), durable(3, 5)]);
    let verdict = check(&with_receiver(entries));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!((verdict.counts.resyncs, verdict.counts.markers, verdict.counts.fetched), (1, 0, 2));

    let mut entries = begin();
    entries.extend([Entry::Adopted, durable(1, 4), durable(2, 5)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Undelivered, 1)]);
}

#[test]
fn a_message_that_comes_again_under_another_epoch_is_doubled_unless_it_was_fetched() {
    let entries = |fetched: bool| {
        let mut entries = vec![
            opened(None, false, place("eb", 0)),
            durable(1, 1),
            durable(2, 2),
            Entry::Resync { place: place("new", 0), is_marker: false },
        ];
        let fetched = fetched.then_some(Entry::Fetched { reason: FetchReason::Resync, message: message(2) });
        entries.extend(fetched.into_iter().chain([Entry::Adopted]));
        entries.extend([durable(1, 2), durable(2, 3), durable(3, 4), durable(4, 5)]);
        with_receiver(entries)
    };
    assert_eq!(faults(&entries(false)), [(ViolationKind::Doubled, 1)]);
    let verdict = check(&entries(true));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!(verdict.counts.repeated, 1);
}

#[test]
fn a_refused_resume_without_resync_is_found() {
    let entries = vec![
        opened(None, false, place("eb", 0)),
        durable(1, 1),
        durable(2, 2),
        Entry::Closed,
        opened(Some(place("eb", 2)), false, place("new", 0)),
        durable(1, 3),
        durable(2, 4),
        durable(3, 5),
    ];
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::ResyncMissing, 1)]);
}

#[test]
fn a_hole_that_only_the_client_noticed_is_silent_and_a_late_event_is_not() {
    let begin = || {
        let hole = Entry::Fetched { reason: FetchReason::Hole, message: message(2) };
        vec![opened(None, false, place("eb", 0)), durable(1, 1), durable(2, 3), hole]
    };
    let mut entries = begin();
    entries.extend([durable(3, 4), durable(4, 5)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::SilentHole, 1)]);

    let mut entries = begin();
    entries.extend([durable(3, 4), durable(4, 5), durable(5, 2)]);
    let verdict = check(&with_receiver(entries));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!(verdict.counts.late, 1);

    let mut entries = begin();
    entries.extend([
        Entry::Resync { place: place("eb", 9), is_marker: false },
        Entry::Adopted,
        durable(10, 4),
        durable(11, 5),
    ]);
    assert!(check(&with_receiver(entries)).is_clean(), "the server owned up to it");
}

#[test]
fn a_position_takes_the_place_of_a_direct_event_and_of_nothing_else() {
    let stands_for = |seq| Entry::Position { place: place("eb", seq), stands_for: Some(seq) };
    let begin = || vec![opened(None, false, place("eb", 0)), durable(1, 1), durable(2, 2), Entry::Direct(message(3))];

    let mut entries = begin();
    entries.extend([stands_for(3), durable(4, 4), durable(5, 5)]);
    let verdict = check(&with_receiver(entries));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!(verdict.counts.direct, 1);

    let mut entries = begin();
    entries.extend([durable(3, 3), durable(4, 4), durable(5, 5)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Doubled, 1)], "the event itself came again");

    let mut entries = begin();
    entries.extend([stands_for(3), stands_for(4), durable(5, 5)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::Undelivered, 1)]);

    let mut entries = begin();
    entries.extend([Entry::Position { place: place("eb", 3), stands_for: None }, durable(4, 4), durable(5, 5)]);
    assert_eq!(faults(&with_receiver(entries)), [(ViolationKind::LogGap, 1)], "a jump within an epoch");
}

#[test]
fn two_devices_that_see_different_logs_are_found() {
    let mut evidence = sound();
    let entries = vec![
        opened(None, false, place("eb", 0)),
        durable(1, 2),
        durable(2, 1),
        durable(3, 3),
        durable(4, 4),
        durable(5, 5),
    ];
    evidence.devices.push(device("b", 2, entries));
    assert_eq!(faults(&evidence), [(ViolationKind::LogDisagrees, 2)]);
}

#[test]
fn a_count_that_is_not_the_stores_is_found() {
    let unread = |count| UnreadCounts::from([(conversation(), count)]);
    let told = |count, total| {
        let mut evidence = sound();
        evidence.unread = HashMap::from([(user("a"), UnreadCounts::new()), (user("b"), unread(5))]);
        evidence.devices[1].log.unread.told(&conversation(), count, total);
        evidence
    };
    let verdict = check(&told(5, 5));
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    assert_eq!((verdict.counts.right_counts, verdict.counts.unread_stored), (2, 5));
    for (count, total) in [(4, 4), (5, 6), (0, 0)] {
        assert_eq!(faults(&told(count, total)), [(ViolationKind::WrongCount, 1)], "{count} {total}");
    }

    let mut evidence = told(5, 5);
    evidence.devices[0].log.unread.told(&conversation(), 1, 1);
    assert_eq!(faults(&evidence), [(ViolationKind::WrongCount, 1)], "nothing is unread for the sender");
    let detail = &check(&evidence).violations[0].detail;
    assert_eq!(detail, "a (device 0) holds c1: 1, not 0; total 1, of 0");
}
