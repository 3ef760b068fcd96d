//! Counts the heap allocations, and their bytes, of each step of a message's way. It is a binary of its own, because
//! the allocator counts for its whole process.

#![cfg(test)]

mod hot_path;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use hot_path::{Measure, steps};

/// Calls before it counts: tables and buffers have then grown to their size.
const WARM_UP: usize = 300;
/// Calls that are counted, each for itself.
const COUNTED: usize = 64;

/// The most that a call of each step may take: allocations (growing one counts as one more), and their bytes. A step that
/// needs less should say so here.
const MOST: &[(&str, Taken)] = &[
    ("decode message.send", taken(5, 382)),
    ("decode typing", taken(1, 32)),
    ("decode message.read", taken(1, 32)),
    ("build message.sent and message.new", taken(6, 2945)),
    ("build message.read_ack and message.read_update", taken(9, 1336)),
    ("build typing", taken(1, 128)),
    ("answer a ping", taken(2, 236)),
    ("deliver message.new to one socket", taken(3, 1187)),
    ("deliver message.new to ten sockets", taken(12, 2339)),
    ("deliver message.sent to one socket", taken(3, 1220)),
    ("deliver message.read_ack to one socket", taken(3, 417)),
    ("deliver message.read_update to one socket", taken(3, 419)),
    ("deliver typing to one socket", taken(9, 359)),
    ("check the payload of message.new", taken(0, 0)),
    ("deliver message.new to one socket of listings.v1", taken(24, 2664)),
    ("deliver message.new to one socket of social.v1", taken(22, 2496)),
    ("deliver message.new to one socket of channels.v1", taken(22, 2681)),
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
        unsafe { System.realloc(place, layout, bytes) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
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
        let first = counts.first().copied().unwrap_or_default();
        assert!(counts.iter().all(|count| *count == first), "{name} is not the same each time: {counts:?}");
        self.steps.push((name, first));
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
