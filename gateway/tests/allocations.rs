//! Counts the heap allocations, and their bytes, of each step of a message's way. It is a binary of its own, because
//! the allocator counts for its whole process.

#![cfg(test)]

mod hot_path;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use gateway::backbone::Inbox;
use gateway::ws::decoder::Decoder;
use hot_path::{COMPRESSED, Measure, Rig, deflated, long_bodies, masked, prose, steps};
use shared::Wire;

/// Calls before it counts: tables and buffers have then grown to their size.
const WARM_UP: usize = 300;
/// Calls that are counted, each for itself.
const COUNTED: usize = 64;

/// How many bytes the compressed forms of events differ that differ only in their numbers.
const COMPRESSED_BYTES_APART: usize = 8;

/// The most that a call of each step may take: allocations (growing one counts as one more), and their bytes. A step that
/// needs less should say so here.
const MOST: &[(&str, Taken)] = &[
    ("decode message.send", taken(5, 382)),
    ("decode typing", taken(1, 32)),
    ("decode message.read", taken(1, 32)),
    ("build message.sent and message.new", taken(6, 2945)),
    ("build message.read_ack and message.read_update", taken(9, 1192)),
    ("build typing", taken(1, 128)),
    ("answer a ping", taken(2, 236)),
    ("deliver message.new to one socket", taken(5, 1367)),
    ("deliver message.new to ten sockets", taken(14, 2519)),
    ("deliver message.sent to one socket", taken(3, 1118)),
    ("deliver message.read_ack to one socket", taken(5, 593)),
    ("deliver message.read_update to one socket", taken(3, 317)),
    ("deliver typing to one socket", taken(9, 359)),
    ("check the payload of message.new", taken(0, 0)),
    ("deliver message.new to one socket of listings.v1", taken(24, 2664)),
    ("deliver message.new to one socket of social.v1", taken(22, 2496)),
    ("deliver message.new to one socket of channels.v1", taken(22, 2681)),
    ("decode a long message.send", taken(5, 1684)),
    ("decode a long message.send, compressed", taken(6, 4372)),
    ("deliver a long message.new to one socket", taken(5, 3967)),
    ("deliver a long message.new to ten sockets", taken(14, 5119)),
    ("deliver a long message.new, compressed, to one socket", taken(7, 5879)),
    ("deliver a long message.new, compressed, to ten sockets", taken(16, 7031)),
];

/// What was taken from the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Taken {
    allocations: usize,
    bytes: usize,
}

const fn taken(allocations: usize, bytes: usize) -> Taken {
    Taken { allocations, bytes }
}

thread_local! {
    /// By this thread, so that nothing that runs beside a step is counted with it.
    static TAKEN: Cell<Taken> = const { Cell::new(taken(0, 0)) };
    /// Bytes that were taken and not given back.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn count(bytes: usize) {
        TAKEN.with(|counted| {
            let Taken { allocations, bytes: before } = counted.get();
            counted.set(taken(allocations + 1, before + bytes));
        });
        Self::hold(bytes, 1);
    }

    fn hold(bytes: usize, sign: i64) {
        HELD.with(|held| held.set(held.get() + sign * bytes as i64));
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; all calls are handed on as they came")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count(bytes);
        Self::hold(layout.size(), -1);
        unsafe { System.realloc(place, layout, bytes) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        Self::hold(layout.size(), -1);
        unsafe { System.dealloc(place, layout) }
    }
}

/// Counts each step.
#[derive(Default)]
struct Counter {
    steps: Vec<(&'static str, Taken)>,
}

impl Measure for Counter {
    fn step<I, O>(&mut self, name: &'static str, mut input: impl FnMut() -> I, mut run: impl FnMut(I) -> O) {
        let mut call = |input: I| {
            TAKEN.set(taken(0, 0));
            drop(black_box(run(black_box(input))));
            TAKEN.get()
        };
        for _ in 0..WARM_UP {
            call(input());
        }
        let counts: Vec<Taken> = (0..COUNTED).map(|_| call(input())).collect();
        // A compressed form is some bytes shorter or longer with each number that stands in the event.
        let most = counts.iter().copied().max_by_key(|count| count.bytes).unwrap_or_default();
        let is_as_most =
            |count: &Taken| count.allocations == most.allocations && count.bytes + COMPRESSED_BYTES_APART >= most.bytes;
        assert!(counts.iter().all(is_as_most), "{name} is not the same each time: {counts:?}");
        self.steps.push((name, most));
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the numbers are what one may look for")]
fn no_step_takes_more_from_the_heap_than_it_did() {
    let mut counter = Counter::default();
    steps(&mut counter);
    let lines = counter
        .steps
        .iter()
        .map(|(name, Taken { allocations, bytes })| format!("    (\"{name}\", taken({allocations}, {bytes})),\n"));
    let table: String = lines.collect();
    println!("allocations and bytes of each step:\n{table}");
    let is_more = |(step, most): (&(&str, Taken), &(&str, Taken))| {
        step.0 != most.0 || step.1.allocations > most.1.allocations || step.1.bytes > most.1.bytes
    };
    let more: Vec<_> = counter.steps.iter().zip(MOST).filter(|pair| is_more(*pair)).collect();
    assert!(more.is_empty() && counter.steps.len() == MOST.len(), "more than before: {more:#?}; now:\n{table}");
}

/// Sockets that have sent and got compressed messages, and are idle again, hold what others hold: no inflater, no deflater, no
/// buffer.
#[test]
fn an_idle_socket_holds_the_same_with_compression_as_without() {
    const SOCKETS: usize = 100;
    let send = prose(1_500);
    let message = format!(r#"{{"type":"message.new","payload":{{"content":"{send}"}}}}"#);
    let held_by = |wire: Wire, frame: &[u8]| {
        // Sockets are of one type: only what they take afterwards can differ.
        let rig = Rig::new(&vec![wire; SOCKETS]);
        let before = HELD.get();
        let mut decoders: Vec<Decoder> =
            (0..SOCKETS).map(|_| Decoder::new(1 << 16, wire.deflate_from.is_some())).collect();
        for decoder in &mut decoders {
            for piece in frame.chunks(100) {
                let mut piece = piece.to_vec();
                let last = decoder.next(&mut piece.as_mut_slice()).expect("no fault");
                drop(last);
            }
        }
        rig.fanout.user_event(hot_path::USER, &rig.payload(message.as_bytes()));
        let bytes = rig.take();
        let held = HELD.get() - before;
        drop((rig, decoders));
        (held, bytes)
    };
    let plain = masked(0x81, send.as_bytes());
    let compressed = masked(0xC1, &deflated(send.as_bytes()));
    // What a thread and a process have once is there after the first call.
    held_by(COMPRESSED, &compressed);
    let ((without, plain_bytes), (with, bytes)) = (held_by(Wire::CHAT, &plain), held_by(COMPRESSED, &compressed));
    assert!(bytes * 3 < plain_bytes * 2, "it was compressed: {bytes} of {plain_bytes} bytes");
    assert_eq!(with, without);
}

/// The bytes on the wire of one `message.new` with its unread count, for loadtest/RESULTS.md.
#[test]
#[expect(clippy::print_stdout, reason = "the numbers are what one may look for")]
fn compressed_events_take_fewer_bytes_from_the_least_size_on() {
    for chars in [200, 600, 1_500, 4_000] {
        let body = long_bodies(chars).new;
        let bytes_on = |wire: Wire| {
            let rig = Rig::new(&[wire]);
            rig.fanout.user_event(hot_path::USER, &rig.payload(&body));
            rig.take()
        };
        let (plain, compressed) = (bytes_on(Wire::CHAT), bytes_on(COMPRESSED));
        println!("| {chars} | {plain} | {compressed} |");
        assert!(if chars < 400 { compressed == plain } else { compressed * 4 < plain * 3 });
    }
}
